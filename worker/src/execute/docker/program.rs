//! This program in a container, whose image need not have a single library of it: what of the host is shown to it, and what
//! is executed.
//!
//! The program, its loader and its libraries are mounted one by one, to be read, at places where nobody else's are. It is
//! started by its own loader, which is told where the libraries are by an option and not by a variable: so nothing of it
//! reaches what the action starts, which is the image's. Pure. Deliberately absent: programs for another architecture.

use std::path::{Path, PathBuf};

use crate::sys::image::Image;

/// Where the files are, in the container.
const FOLDER: &str = "/run/acode";

/// What a container needs to execute this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Files of the host, and where they are shown.
    pub shown: Vec<(PathBuf, String)>,
    /// What is executed in there.
    pub entrypoint: String,
    /// Its arguments.
    pub words: Vec<String>,
}

impl Program {
    /// The program whose file is `file` now, and which is loaded like `image`. `name` stands on its command line.
    pub fn new(image: &Image, file: &Path, name: &str) -> Self {
        let program = format!("{FOLDER}/program");
        let mut shown = vec![(file.to_owned(), program.clone())];
        let Some(loader) = image.loader() else {
            return Self { shown, entrypoint: program, words: vec![name.to_owned()] };
        };
        let (entrypoint, libraries) = (format!("{FOLDER}/loader"), format!("{FOLDER}/lib"));
        shown.push((loader.to_owned(), entrypoint.clone()));
        for library in image.libraries() {
            let place = library.file_name().map(|name| format!("{libraries}/{}", name.to_string_lossy()));
            // Of two with one name the loader has taken the first for both.
            if let Some(place) = place.filter(|place| shown.iter().all(|(_, taken)| taken != place)) {
                shown.push((library.clone(), place));
            }
        }
        let words = vec!["--library-path".to_owned(), libraries, program, name.to_owned()];
        Self { shown, entrypoint, words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::image;

    #[test]
    fn what_is_loaded_is_shown_and_found_by_the_loader() {
        let own = image::own();
        let program = Program::new(own, own.program(), "compression");
        assert!(program.shown.iter().any(|(_, place)| *place == program.entrypoint));
        assert_eq!(program.shown.len(), own.files().count());
        assert_eq!(program.words.last().map(String::as_str), Some("compression"));
        if own.loader().is_some() {
            assert_eq!(program.words[..2], ["--library-path", "/run/acode/lib"]);
            assert!(program.shown.iter().any(|(_, place)| place == "/run/acode/lib/libc.so.6"), "{program:?}");
        }
    }

    #[test]
    fn what_is_linked_statically_is_executed_itself() {
        let program = Program::new(&Image::default(), Path::new("/opt/acode"), "x");
        let shown = [(PathBuf::from("/opt/acode"), "/run/acode/program".to_owned())];
        let expected =
            Program { shown: shown.into(), entrypoint: "/run/acode/program".into(), words: vec!["x".into()] };
        assert_eq!(program, expected);
    }
}
