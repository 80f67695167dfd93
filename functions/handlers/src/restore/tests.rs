use pipeline::target::DirectoryTarget;
use pipeline::vault::FileRef;

use super::*;

/// What these notes say of the request `mine` to the instant 7. A note is (request, instant, what it ended).
fn check(notes: &[(&str, i64, Option<Ended>)], expected: &str) {
    let numbered = notes.iter().zip(1..).map(|(&(request, to, ended), number)| {
        let to = Timestamp::from_seconds(to);
        let record = RestoreNote {
            request: Digest::of(request.as_bytes()),
            target: "/srv".to_owned(),
            to,
            at: to,
            ended: ended.is_some(),
            began: ended.and_then(|ended| ended.began),
        };
        Numbered { number, file: FileRef { path: String::new(), size: 0, digest: Digest::of(b"") }, record }
    });
    let standing = match said_by(&numbered.collect::<Vec<_>>(), Digest::of(b"mine"), Timestamp::from_seconds(7)) {
        Standing::Free => "free",
        Standing::BrokenOff => "broken off",
        Standing::Ended => "ended",
        Standing::Strange(None) => "strange",
        Standing::Strange(Some(_)) => "strange, and another broke off",
    };
    assert_eq!(standing, expected, "{notes:?}");
}

/// The end of the restore that the note of this number had begun.
#[derive(Debug, Clone, Copy)]
struct Ended {
    began: Option<u64>,
}

const END_OF: fn(u64) -> Option<Ended> = |began| Some(Ended { began: Some(began) });

#[test]
fn only_notes_of_the_same_request_to_the_same_instant_count() {
    check(&[], "strange");
    check(&[("other", 7, None)], "strange");
    check(&[("other", 7, None), ("mine", 8, None)], "strange, and another broke off");
    check(&[("mine", 8, None), ("mine", 8, END_OF(1))], "strange");
    check(&[("mine", 7, None), ("other", 7, END_OF(1))], "broken off");
}

#[test]
fn a_place_of_the_same_name_elsewhere_is_another() {
    let request = RestoreRequest {
        resource: "s3://photos".parse().unwrap(),
        to: RestorePoint::Latest,
        certainty: Certainty::Arrived,
        options: RestoreOptions::default(),
    };
    let of = |path: &str| identity(&request, &(Arc::new(DirectoryTarget::new(path)) as Arc<dyn Target>));
    let here = std::env::current_dir().unwrap();
    assert_eq!(of("out"), of(here.join("out").to_str().unwrap()));
    assert_ne!(of("out"), of("/elsewhere/out"));
}

#[test]
fn an_end_stands_for_what_began_before_it_was_begun() {
    check(&[("mine", 7, None), ("mine", 7, END_OF(1))], "ended");
    check(&[("mine", 7, None), ("mine", 7, None), ("mine", 7, END_OF(2))], "ended");
    check(&[("mine", 7, None), ("mine", 7, END_OF(1)), ("mine", 7, None)], "broken off");
}

#[test]
fn of_two_at_the_same_time_the_one_that_did_not_end_is_gone_over_again() {
    check(&[("mine", 7, None), ("mine", 7, None), ("mine", 7, END_OF(1))], "broken off");
}

#[test]
fn an_end_that_does_not_say_what_it_ended_stands_for_what_was_begun_before_it() {
    check(&[("mine", 7, None), ("mine", 7, Some(Ended { began: None }))], "ended");
    check(&[("mine", 7, None), ("mine", 7, Some(Ended { began: None })), ("mine", 7, None)], "broken off");
}
