//! The guide leads nowhere that is not there: its links, and those of the README. Its programs are tests of this crate's documentation.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The chapters.
fn chapters() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("docs/src")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// What a text links to, outside of its programs, but for other sites.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    let targets = prose.flat_map(|prose| prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
    targets.filter(|target| !target.contains("://")).collect()
}

/// The anchors that headings have.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.split("```").step_by(2).flat_map(str::lines).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        words
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut dangling = Vec::new();
    let mut checked = 0;
    for file in chapters().into_iter().chain([root().join("README.md"), root().join("ARCHITECTURE.md")]) {
        let text = fs::read_to_string(&file).unwrap();
        for link in links(&text) {
            checked += 1;
            let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let leads = target.exists()
                && anchor
                    .is_none_or(|anchor| anchors(&fs::read_to_string(&target).unwrap()).contains(&anchor.to_owned()));
            if !leads {
                dangling.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(dangling.is_empty(), "{dangling:#?}");
    assert!(checked > 20, "{checked} links");
}

#[test]
fn every_chapter_is_in_the_summary() {
    let summary = fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    let listed = links(&summary);
    for chapter in chapters() {
        let name = chapter.file_name().unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || listed.contains(&name), "{name}");
    }
}

#[test]
fn first_programs_have_no_more_than_twenty_lines() {
    let guide = fs::read_to_string(root().join("docs/src/first-queue.md")).unwrap();
    let programs = guide.split("\n```rust").skip(1).filter_map(|rest| rest.split("\n```").next());
    for program in programs.take(2) {
        let lines = program.lines().skip(1).filter(|line| !line.trim().is_empty()).count();
        assert!(program.contains("fn main") && lines <= 20, "{lines} lines: {program}");
    }
}
