//! QEMU without a guest, whose disks are written to through its monitor as a device would.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gateway::qmp::Qmp;
use pipeline::changelog::points::FullReason;
use serde_json::json;

use super::world::{World, check, run};

/// QEMU, killed with its value.
pub struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    /// With the disks of a world, each in a device of its own.
    pub async fn start(world: &mut World) -> Machine {
        let socket = world.path("qmp").display().to_string();
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-display", "none", "-machine", "pc,accel=tcg", "-m", "64"]);
        command.args(["-qmp", &format!("unix:{socket},server=on,wait=off")]);
        for (disk, image) in &world.images {
            let (form, image) = image.strip_prefix("raw:").map_or(("qcow2", image.as_str()), |image| ("raw", image));
            let file = format!("driver=file,node-name=f-{disk},filename={image},discard=unmap");
            command.args(["-blockdev", &file, "-blockdev", &format!("driver={form},node-name=n-{disk},file=f-{disk},discard=unmap")]);
            command.args(["-device", &format!("virtio-blk-pci,drive=n-{disk},id={disk}")]);
        }
        let machine = Machine(command.stdin(Stdio::null()).spawn().unwrap());
        world.qmp = Some(socket);
        for _ in 0..400 {
            if Qmp::connect(world.path("qmp").as_path()).await.is_ok() {
                return machine;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("QEMU did not begin");
    }

    pub async fn qmp(world: &World) -> Qmp {
        Qmp::connect(world.path("qmp").as_path()).await.unwrap()
    }

    /// Writes to a disk as the guest would: through its device.
    pub async fn io(world: &World, disk: &str, commands: &[&str]) {
        let mut qmp = Machine::qmp(world).await;
        for command in commands {
            let line = format!("qemu-io -d /machine/peripheral/{disk}/virtio-backend \"{command}\"");
            let told = qmp.command("human-monitor-command", json!({"command-line": line})).await.unwrap();
            let told = told.as_str().unwrap_or_default();
            assert!(!told.contains("rror") && !told.contains("ailed"), "{line}: {told}");
        }
    }

    /// Ends as a machine does that is switched off.
    pub async fn quit(mut self, world: &World) {
        Machine::qmp(world).await.command("quit", json!({})).await.unwrap();
        self.0.wait().unwrap();
    }
}

/// What the disks of a running machine hold: nobody writes meanwhile.
fn contents(world: &World) -> std::collections::BTreeMap<String, Vec<u8>> {
    let copy = world.path("copy.raw");
    let mut contents = std::collections::BTreeMap::new();
    for (disk, image) in &world.images {
        run("qemu-img", &["convert", "-U", "-f", "qcow2", "-O", "raw", image, copy.to_str().unwrap()]);
        contents.insert(disk.clone(), std::fs::read(&copy).unwrap());
    }
    contents
}

/// What was written is in the file, so that another process sees it.
pub async fn flushed(world: &World) -> std::collections::BTreeMap<String, Vec<u8>> {
    for disk in world.images.keys() {
        Machine::io(world, disk, &["flush"]).await;
    }
    contents(world)
}

pub async fn backup(world: &mut World, expected: &[(&str, Option<FullReason>, u64)]) {
    let contents = flushed(world).await;
    let report = world.backup_of(contents).await;
    check(&report, expected);
}
