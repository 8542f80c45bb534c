//! Typed tasks of type `image_manipulation` through the real binary, beside ImageMagick: sizes, turns and formats, and what
//! bombs and damaged files come to.
//!
//! Deliberately absent: each single parameter, which the type's own tests have.

#[path = "common/command.rs"]
mod command;
mod common;
#[path = "common/more.rs"]
mod more;
#[path = "common/typed.rs"]
mod typed;

use std::fs;
use std::path::Path;

use acode_worker::task::ActionType::ImageManipulation;
use command::{Acode, entries};
use common::{Options, Pool};
use serde_json::{Value, json};
use typed::{done, fails, says, tool};

/// Whether ImageMagick is here; says so if it is not.
fn has_imagemagick(folder: &Path) -> bool {
    // Other programs are called `convert`, too.
    let found = std::process::Command::new("convert").arg("--version").current_dir(folder).output();
    let found = found.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("ImageMagick"));
    if !found {
        eprintln!("not tested beside ImageMagick: it is not installed here");
    }
    found
}

/// A pool with a folder `work`, in which ImageMagick has made `in.png`; none without it.
fn with_picture() -> Option<(Pool, std::path::PathBuf)> {
    let pool = Pool::start(Options::workers(1).config("tasks: {retries: {count: 0}}"));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    if !has_imagemagick(&folder) {
        return None;
    }
    let words = ["convert", "-seed", "7", "-size", "320x240", "plasma:red-blue", "-depth", "8", "-strip"];
    says(&folder, &[&words[..], &["-type", "TrueColor", "PNG24:in.png"]].concat());
    Some((pool, folder))
}

fn change(pool: &Pool, input: &str, output: &str, operations: Value) -> Value {
    let params = json!({"input": format!("work/{input}"), "output": format!("work/{output}"), "operations": operations,
        "overwrite": true});
    done(pool, ImageManipulation, params)
}

/// How alike two pictures are, in dB; none if they are the same.
#[track_caller]
fn likeness(folder: &Path, one: &str, two: &str) -> Option<f64> {
    let compared =
        std::process::Command::new("compare").args(["-metric", "PSNR", one, two, "null:"]).current_dir(folder).output();
    let said = String::from_utf8(compared.unwrap().stderr).unwrap();
    match said.trim() {
        "inf" | "0" => None,
        said => Some(said.parse().unwrap_or_else(|_| panic!("{one} {two}: {said}"))),
    }
}

#[track_caller]
fn is_like(folder: &Path, one: &str, two: &str, least: f64) {
    let found = likeness(folder, one, two);
    assert!(found.is_none_or(|found| found >= least), "{one} and {two}: {found:?} dB");
}

#[test]
fn sizes_are_as_imagemagick_makes_them() {
    let Some((pool, folder)) = with_picture() else { return };
    for (filter, theirs) in [("bilinear", "Triangle"), ("catmull-rom", "Catrom"), ("lanczos3", "Lanczos")] {
        for (width, height) in [(80, 60), (500, 375), (100, 200)] {
            let resize =
                json!([{"operation": "resize", "width": width, "height": height, "fit": "exact", "filter": filter}]);
            let made = change(&pool, "in.png", "ours.png", resize);
            let bytes = fs::metadata(folder.join("ours.png")).unwrap().len();
            let expected =
                json!({"format": "png", "width": width, "height": height, "bytes": bytes, "oriented": false});
            assert_eq!(made, expected);
            let size = format!("{width}x{height}!");
            says(&folder, &["convert", "in.png", "-filter", theirs, "-resize", &size, "-depth", "8", "theirs.png"]);
            is_like(&folder, "ours.png", "theirs.png", 40.0);
        }
    }
    // Half transparent: what is behind the opacity must not shine through.
    says(
        &folder,
        &[
            "convert",
            "in.png",
            "(",
            "-size",
            "320x240",
            "gradient:",
            ")",
            "-alpha",
            "off",
            "-compose",
            "CopyOpacity",
            "-composite",
            "PNG32:alpha.png",
        ],
    );
    change(&pool, "alpha.png", "ours.png", json!([{"operation": "resize", "width": 100, "filter": "bilinear"}]));
    says(&folder, &["convert", "alpha.png", "-filter", "Triangle", "-resize", "100x75!", "PNG32:theirs.png"]);
    is_like(&folder, "ours.png", "theirs.png", 38.0);
    for (operation, size) in [
        (json!({"operation": "resize", "width": 100, "height": 100}), (100, 75)),
        (json!({"operation": "resize", "width": 100, "height": 100, "fit": "cover"}), (100, 100)),
        (json!({"operation": "resize", "height": 120}), (160, 120)),
        (json!({"operation": "thumbnail", "width": 64}), (64, 48)),
        (json!({"operation": "thumbnail", "width": 1000}), (320, 240)),
    ] {
        let made = change(&pool, "in.png", "ours.png", json!([operation]));
        assert_eq!((made["width"].as_u64(), made["height"].as_u64()), (Some(size.0), Some(size.1)), "{operation}");
        assert_eq!(says(&folder, &["identify", "-format", "%wx%h", "ours.png"]), format!("{}x{}", size.0, size.1));
    }
}

#[test]
fn turns_and_cuts_are_those_of_imagemagick_to_the_pixel() {
    let Some((pool, folder)) = with_picture() else { return };
    for (operations, theirs) in [
        (
            json!([{"operation": "crop", "x": 10, "y": 20, "width": 100, "height": 50}]),
            &["-crop", "100x50+10+20", "+repage"][..],
        ),
        (json!([{"operation": "rotate", "degrees": 90}]), &["-rotate", "90"]),
        (json!([{"operation": "rotate", "degrees": 180}]), &["-rotate", "180"]),
        (json!([{"operation": "rotate", "degrees": 270}]), &["-rotate", "270"]),
        (json!([{"operation": "flip", "direction": "horizontal"}]), &["-flop"]),
        (json!([{"operation": "flip", "direction": "vertical"}]), &["-flip"]),
        (
            json!([{"operation": "rotate", "degrees": 90}, {"operation": "flip", "direction": "vertical"},
                {"operation": "crop", "width": 33, "height": 77}]),
            &["-rotate", "90", "-flip", "-crop", "33x77+0+0", "+repage"],
        ),
    ] {
        change(&pool, "in.png", "ours.png", operations.clone());
        says(&folder, &[&["convert", "in.png"], theirs, &["theirs.png"]].concat());
        assert_eq!(likeness(&folder, "ours.png", "theirs.png"), None, "{operations}");
    }
    change(&pool, "in.png", "ours.png", json!([{"operation": "grayscale"}]));
    says(&folder, &["convert", "in.png", "-grayscale", "Rec709Luma", "theirs.png"]);
    is_like(&folder, "ours.png", "theirs.png", 45.0);
}

#[test]
fn formats_go_both_ways() {
    let Some((pool, folder)) = with_picture() else { return };
    let jpeg = change(&pool, "in.png", "ours.jpg", json!([{"operation": "convert", "quality": 95}]));
    assert_eq!(says(&folder, &["identify", "-format", "%m", "ours.jpg"]), "JPEG");
    is_like(&folder, "in.png", "ours.jpg", 35.0);
    let small = change(&pool, "in.png", "ours.bin", json!([{"operation": "convert", "format": "jpeg", "quality": 20}]));
    assert!(small["bytes"].as_u64() < jpeg["bytes"].as_u64(), "{small} {jpeg}");
    says(&folder, &["convert", "in.png", "-quality", "90", "theirs.jpg"]);
    change(&pool, "theirs.jpg", "back.png", json!([]));
    is_like(&folder, "theirs.jpg", "back.png", 45.0);
    let webp = change(&pool, "in.png", "ours.webp", json!([]));
    assert_eq!(webp["format"], "webp");
    change(&pool, "ours.webp", "back.png", json!([]));
    assert_eq!(likeness(&folder, "in.png", "back.png"), None, "WebP is written without loss");
    if says(&folder, &["convert", "-list", "format"]).contains("WEBP") {
        assert_eq!(likeness(&folder, "in.png", "ours.webp"), None);
        says(&folder, &["convert", "in.png", "-define", "webp:lossless=true", "theirs.webp"]);
        change(&pool, "theirs.webp", "back.png", json!([]));
        assert_eq!(likeness(&folder, "in.png", "back.png"), None);
    }
    // What is transparent shows the background in a JPEG.
    says(&folder, &["convert", "-size", "20x20", "xc:none", "PNG32:none.png"]);
    let params = json!({"input": "work/none.png", "output": "work/red.jpg", "background": "#ff0000"});
    done(&pool, ImageManipulation, params);
    says(&folder, &["convert", "-size", "20x20", "xc:red", "red.png"]);
    is_like(&folder, "red.png", "red.jpg", 40.0);
}

#[test]
fn an_exif_orientation_is_honoured() {
    let Some((pool, folder)) = with_picture() else { return };
    says(&folder, &["convert", "in.png", "-quality", "98", "plain.jpg"]);
    let plain = fs::read(folder.join("plain.jpg")).unwrap();
    for orientation in 1..=8u8 {
        // One entry, the orientation (0x0112), in the first directory of a little-endian TIFF.
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        let turned = [&plain[..2], &[0xFF, 0xE1], &length, &exif, &plain[2..]].concat();
        fs::write(folder.join("turned.jpg"), turned).unwrap();
        let made = change(&pool, "turned.jpg", "ours.png", json!([]));
        assert_eq!(made["oriented"], orientation != 1);
        says(&folder, &["convert", "turned.jpg", "-auto-orient", "theirs.png"]);
        is_like(&folder, "ours.png", "theirs.png", 40.0);
    }
    let params = json!({"input": "work/turned.jpg", "output": "work/as-is.png", "autoOrient": false});
    let made = done(&pool, ImageManipulation, params);
    assert_eq!((&made["width"], &made["oriented"]), (&json!(320), &json!(false)));
}

/// A PNG of one black pixel row that claims to be as large as this.
fn claiming(width: u32, height: u32) -> Vec<u8> {
    let mut head = [b"IHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let mut sum = !0u32;
    for byte in &head {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
        }
    }
    head.extend((!sum).to_be_bytes());
    [b"\x89PNG\r\n\x1a\n\0\0\0\r".as_slice(), &head, b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xae\x42\x60\x82"]
        .concat()
}

#[test]
fn bombs_and_damaged_pictures_are_refused_and_leave_nothing() {
    let pool = Pool::start(Options::workers(1).config("tasks: {retries: {count: 0}}"));
    let folder = pool.file("work");
    fs::create_dir(&folder).unwrap();
    let refused = |name: &str, bytes: &[u8], extra: Value| {
        fs::write(folder.join(name), bytes).unwrap();
        let mut params = json!({"input": format!("work/{name}"), "output": "work/out.png"});
        params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let error = fails(&pool, ImageManipulation, params);
        assert_eq!(entries(&folder), [name], "{error}");
        fs::remove_file(folder.join(name)).unwrap();
        assert!(error.contains(name), "{error}");
        error
    };
    let worker = pool.idle_workers().remove(0);
    let error = refused("bomb.png", &claiming(60_000, 60_000), json!({}));
    assert!(error.contains("60000 x 60000"), "{error}");
    let error = refused("bomb.png", &claiming(100, 100), json!({"maxPixels": 9_999}));
    assert!(error.contains("maxPixels = 9999"), "{error}");
    for garbage in
        [&b""[..], b"\x89PNG", b"GIF89a", b"\xFF\xD8\xFF", b"RIFF\x10\0\0\0WEBPVP8 ", &claiming(9, 9), &[7; 5000]]
    {
        refused("garbage.png", garbage, json!({}));
    }
    if has_imagemagick(&folder) {
        for format in ["png", "jpg", "webp"] {
            let name = format!("whole.{format}");
            says(&folder, &["convert", "-seed", "3", "-size", "300x200", "plasma:", &name]);
            let whole = fs::read(folder.join(&name)).unwrap();
            fs::remove_file(folder.join(&name)).unwrap();
            for percent in [5, 30, 60, 95] {
                refused("cut.img", &whole[..whole.len() * percent / 100], json!({}));
            }
            // Its pixels are there, and its end is not.
            refused("cut.img", &whole[..whole.len() - 3], json!({}));
        }
    }
    assert_eq!(pool.idle_workers().remove(0).id, worker.id, "the worker lives on");
}

#[test]
fn files_are_not_overwritten_and_the_short_form_is_for_the_command_line() {
    let Some((pool, folder)) = with_picture() else { return };
    let acode = Acode::of(&pool);
    let params = format!(
        r#"{{"image": "{0}/in.png", "output": "{0}/out.jpg", "operation": "resize", "width": 80, "height": 60}}"#,
        folder.display()
    );
    let submit = ["task", "submit", "--type", "image_manipulation", "--isolation", "none", "--params", &params];
    let id = acode.ok(&submit);
    acode.ok(&["task", "wait", &id]);
    assert_eq!(says(&folder, &["identify", "-format", "%m %wx%h", "out.jpg"]), "JPEG 80x60");
    let again = json!({"input": "work/in.png", "output": "work/out.jpg"});
    assert!(fails(&pool, ImageManipulation, again).contains("exists"));
    tool(&folder, &["ln", "in.png", "same.png"]).unwrap();
    let same = json!({"input": "work/in.png", "output": "work/same.png", "overwrite": true});
    assert!(fails(&pool, ImageManipulation, same).contains("the same file"));
    let wrong = ["task", "submit", "--type", "image_manipulation", "--params", r#"{"input": "a", "output": "b.gif"}"#];
    let said = acode.says(&wrong);
    assert!(said.code != Some(0) && said.err.contains("the format of b.gif is not known"), "{said:?}");
}
