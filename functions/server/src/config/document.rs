//! `docs/configuration.md`, made from the declarations of the settings.

use std::fmt::Write;

use super::{Config, EndpointSettings, GroupSettings, KafkaSettings, Setting, VaultSettings};

const HEAD: &str = "\
# Configuration

<!-- Made by `hindsight config --markdown` from functions/server/src/config.rs. Change it there. -->

Everything can be set in one TOML file; nothing must be. The file is the one that `--config` or `HINDSIGHT_CONFIG` names,
else `~/.config/hindsight/hindsight.toml`, else `/etc/hindsight.toml`. The environment goes over the file, and flags go over
the environment. The file holds no secrets, only the names of profiles and environment variables that have them.

```toml
[vaults.main]
url = \"file:///srv/vault\"

[endpoints.office]
url = \"https://s3.office.example\"
profile = \"office\"
```

`--vault` takes the name of a vault or its place; where only one vault is configured, it may be left out (`HINDSIGHT_VAULT`
stands for it, too). `--endpoint-url` is the S3 server, as with AWS's own command line.
";

const FOOT: &str = "
## Credentials

Those of the endpoint: `access_key_env` and `secret_key_env` where they are set, else its `profile`, else whatever AWS's tools
would use here: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE`, a web identity, the role of the machine. The
same credentials are used for a vault at that endpoint and for queues of its account. Profiles that sign in through a
browser (SSO) or start a program (`credential_process`) are not read.
";

/// The page.
pub fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for (title, settings) in [
        ("The file", Config::SETTINGS),
        ("`[vaults.NAME]`", VaultSettings::SETTINGS),
        ("`[endpoints.NAME]`", EndpointSettings::SETTINGS),
        ("`[kafka.NAME]`", KafkaSettings::SETTINGS),
        ("`[groups.NAME]`", GroupSettings::SETTINGS),
    ] {
        table(&mut page, title, settings);
    }
    page.push_str(FOOT);
    page
}

fn table(page: &mut String, title: &str, settings: &[Setting]) {
    let _ = write!(page, "\n## {title}\n\n| setting | meaning | default | over it |\n|---|---|---|---|\n");
    for Setting { name, about, default, over } in settings {
        let _ = writeln!(page, "| `{name}` | {} | {default} | {} |", about.trim(), code(over));
    }
}

/// `A, --b` as code, each.
fn code(words: &str) -> String {
    words.split(", ").filter(|word| !word.is_empty()).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == super::markdown(), "run `cargo run -p server -- config --markdown > docs/configuration.md`");
    }
}
