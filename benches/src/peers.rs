//! Programs that measure other runtimes and print [`Line`]s: a directory with a `Makefile`, given by the user.
//!
//! They are called as `PROGRAM THREADS REPETITIONS BENCH[:SIZE..]..`, and built into `BUILD` if that is set, else beside the
//! program that runs.

use crate::line::Line;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The programs of a directory.
#[derive(Debug)]
pub struct Programs {
    build: PathBuf,
}

/// One call of one program.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Its file name.
    pub program: &'a str,
    /// Its first argument.
    pub threads: usize,
    /// What to measure.
    pub benches: &'a [String],
    /// How many threads OpenBLAS uses inside it.
    pub blas_threads: usize,
    /// The core whose kernels OpenBLAS uses (`OPENBLAS_CORETYPE`); its own choice unless given.
    pub blas_core: Option<&'a str>,
}

impl Programs {
    /// Builds what can be built there.
    ///
    /// # Errors
    /// Says why there is nothing. What is missing of many is said to the user only: [`has`](Self::has) tells.
    pub fn build(directory: &Path) -> Result<Programs, String> {
        let makefile = directory.join("Makefile");
        if !makefile.is_file() {
            return Err(format!("there is no {}", makefile.display()));
        }
        let build = match std::env::var_os("BUILD") {
            Some(build) => PathBuf::from(build),
            None => std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("peers"),
        };
        std::fs::create_dir_all(&build).map_err(|error| format!("{}: {error}", build.display()))?;
        let make = Command::new("make")
            .args(["-s", "-k", "-C"])
            .arg(directory)
            .arg(format!("BUILD={}", build.display()))
            .stdout(Stdio::null())
            .status()
            .map_err(|error| format!("`make` cannot be run: {error}"))?;
        if !make.success() {
            eprintln!("some peers cannot be built here; what can be is measured");
        }
        Ok(Programs { build })
    }

    /// As [`build`](Self::build); what does not work is said to the user, and the measurement goes on without peers.
    pub fn or_none(directory: Option<&Path>) -> Option<Programs> {
        let directory = directory?;
        Programs::build(directory).map_err(|why| eprintln!("no peers of {}: {why}", directory.display())).ok()
    }

    /// Whether there is such a program.
    pub fn has(&self, program: &str) -> bool {
        self.build.join(program).is_file()
    }

    /// The lines of one repetition. None, and a word to the user, if the program fails.
    ///
    /// What the environment says of OpenBLAS's kernels is removed.
    pub fn run(&self, call: Call<'_>) -> Vec<Line> {
        let Call { program, threads, benches, blas_threads, blas_core } = call;
        let output = Command::new(self.build.join(program))
            .args([threads.to_string(), "1".to_owned()])
            .args(benches)
            .env("OPENBLAS_NUM_THREADS", blas_threads.to_string())
            .env("STARPU_SILENT", "1")
            .env("STARPU_HOME", &self.build)
            .env_remove("OPENBLAS_CORETYPE")
            .env_remove("OPENBLAS_L2_SIZE")
            .envs(blas_core.map(|core| ("OPENBLAS_CORETYPE", core)))
            .stderr(Stdio::piped())
            .output();
        match output {
            Ok(output) if output.status.success() => {
                String::from_utf8_lossy(&output.stdout).lines().filter_map(Line::parse).collect()
            }
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                eprintln!(
                    "{program} failed ({}): {}",
                    output.status,
                    said.lines().last().unwrap_or_default()
                );
                Vec::new()
            }
            Err(error) => {
                eprintln!("{program} cannot be run: {error}");
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_programs_is_no_error_of_the_measurement() {
        assert!(Programs::or_none(None).is_none());
        let nowhere = Path::new("no/such/directory");
        assert!(Programs::build(nowhere).unwrap_err().contains("Makefile"));
        assert!(Programs::or_none(Some(nowhere)).is_none());
    }

    #[cfg(unix)]
    #[test]
    fn lines_of_a_program_are_read_and_its_failure_is_none() {
        use std::os::unix::fs::PermissionsExt;
        let build = std::env::temp_dir().join(format!("dagger-benches-{}", std::process::id()));
        std::fs::create_dir_all(&build).unwrap();
        let script = |name: &str, text: &str| {
            let path = build.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        script(
            "good",
            r#"echo progress; echo "{\"peer\":\"$3\",\"bench\":\"b\",\"params\":{\"threads\":$1,\"blas\":$OPENBLAS_NUM_THREADS},\"value\":$2,\"unit\":\"us\"}""#,
        );
        script("bad", "exit 1");
        let programs = Programs { build: build.clone() };
        let call = Call {
            program: "good",
            threads: 7,
            benches: &["x".to_owned()],
            blas_threads: 3,
            blas_core: None,
        };
        let lines = programs.run(call);
        let expected = Line::new("x", "b", Some(1.0), "us").with("threads", 7).with("blas", 3);
        assert_eq!(lines, [expected]);
        assert_eq!(programs.run(Call { program: "bad", ..call }), []);
        assert!(programs.has("good") && !programs.has("absent"));
        assert_eq!(programs.run(Call { program: "absent", ..call }), []);
        std::fs::remove_dir_all(build).unwrap();
    }
}
