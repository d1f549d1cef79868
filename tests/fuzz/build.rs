//! Lists the rooms of the product that the path of a sign-in names, directly or through others, for `src/lib.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let src = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../../src");
    let src = src.canonicalize().expect("the product stands beside");
    let (mut rooms, mut open) = (BTreeMap::new(), vec!["signin".to_owned()]);
    while let Some(room) = open.pop() {
        let (file, folder) = (src.join(format!("{room}.rs")), src.join(&room));
        let root = if file.exists() { file } else { folder.join("mod.rs") };
        let mut sources = vec![root.clone()];
        collect(&folder, &mut sources);
        for source in sources {
            let text = fs::read_to_string(&source).expect("a source file");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let named = code.flat_map(|line| line.split("crate::").skip(1));
            open.extend(named.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()));
        }
        rooms.insert(room, root);
        open.retain(|name| !name.is_empty() && !rooms.contains_key(name));
    }
    let list = rooms.iter().map(|(room, file)| format!("#[path = {file:?}]\npub mod {room};\n"));
    let out = Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("rooms.rs");
    fs::write(out, list.collect::<String>()).expect("the build folder can be written");
    println!("cargo::rerun-if-changed={}", src.display());
}

/// All Rust files of a folder, if there is one.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}
