//! Container images: layouts made by hand, and what skopeo makes of them: OCI archives and docker archives, with gzip and zstd layers.

use embody::testing::image::digest::Digest;

use super::bench::{Bench, has, objects};

/// Writes OCI layouts; layers are lists of (path, contents; None: a directory; a tuple: type and link).
const MAKE: &str = r#"
import gzip, hashlib, io, json, os, subprocess, sys, tarfile
def sha(data): return "sha256:" + hashlib.sha256(data).hexdigest()
def tar(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, what in entries:
            member = tarfile.TarInfo(path)
            member.mtime = 7
            if what is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            elif isinstance(what, tuple):
                member.type, member.linkname = what
                archive.addfile(member)
            else:
                member.size = len(what)
                archive.addfile(member, io.BytesIO(what))
    return out.getvalue()
class Layout:
    def __init__(self, root):
        self.root, self.manifests = root, []
        os.makedirs(root + "/blobs/sha256", exist_ok=True)
        open(root + "/oci-layout", "w").write('{"imageLayoutVersion": "1.0.0"}')
    def blob(self, data, media_type):
        open(self.root + "/blobs/sha256/" + sha(data)[7:], "wb").write(data)
        return {"mediaType": media_type, "digest": sha(data), "size": len(data)}
    def image(self, layers, arch="amd64", tag=None, packing="gzip", listed=True):
        kind = "application/vnd.oci.image.layer.v1.tar"
        packed = []
        for layer in layers:
            if packing == "gzip": packed.append(self.blob(gzip.compress(layer, mtime=0), kind + "+gzip"))
            elif packing == "zstd": packed.append(self.blob(subprocess.run(["zstd", "-q"], input=layer, stdout=subprocess.PIPE, check=True).stdout, kind + "+zstd"))
            else: packed.append(self.blob(layer, kind))
        config = {"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [sha(layer) for layer in layers]}}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": self.blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"), "layers": packed}
        descriptor = self.blob(json.dumps(manifest).encode(), manifest["mediaType"])
        descriptor["platform"] = {"architecture": arch, "os": "linux"}
        if tag: descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
        if listed: self.manifests.append(descriptor)
        return descriptor
    def index(self, manifests):
        media_type = "application/vnd.oci.image.index.v1+json"
        self.manifests.append(self.blob(json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).encode(), media_type))
    def write(self):
        open(self.root + "/index.json", "w").write(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))
L, S = tarfile.LNKTYPE, tarfile.SYMTYPE
LAYERS = [
    tar([("./", None), ("etc", None), ("etc/gone", b"gone"), ("etc/kept", b"kept"), ("etc/link", (L, "etc/kept")), ("opaque", None), ("opaque/old", b"old"),
         ("opaque/dir/deep", b"deep"), ("usr/lib", None), ("lib", (S, "usr/lib")), ("tree/a/b", b"b"), ("file-to-dir", b"x"), ("dir-to-file/x", b"x")]),
    tar([("etc/.wh.gone", b""), ("etc/.wh.never", b""), ("opaque/new", b"new"), ("opaque", None), ("opaque/.wh..wh..opq", b""), ("lib/from-upper", b"upper"),
         (".wh.tree", b""), ("etc/kept", b"changed"), ("file-to-dir", None), ("file-to-dir/y", b"y"), ("dir-to-file", b"now"), (".wh..wh.plnk", b"")]),
    tar([("tree", None), ("tree/a2", b"a2"), ("etc/upper-link", (L, "etc/link"))]),
]
EXPECTED = [("./", None), ("dir-to-file", b"now"), ("etc", None), ("etc/kept", b"changed"), ("etc/link", b"kept"), ("etc/upper-link", (L, "etc/link")), ("file-to-dir", None),
            ("file-to-dir/y", b"y"), ("lib", (S, "usr/lib")), ("opaque", None), ("opaque/new", b"new"), ("tree", None), ("tree/a2", b"a2"), ("usr/lib", None), ("usr/lib/from-upper", b"upper")]
"#;

fn python(bench: &Bench, script: &str) {
    std::fs::write(bench.path("make.py"), format!("{MAKE}\n{script}")).unwrap();
    bench.sh("python3 make.py");
}

#[test]
fn layers_become_the_tree_that_a_runtime_would_see() {
    let bench = Bench::new();
    python(
        &bench,
        r#"
for packing in ("gzip", "zstd", "none"):
    layout = Layout(packing)
    layout.image(LAYERS, packing=packing)
    layout.write()
open("expected.tar", "wb").write(tar(EXPECTED))
"#,
    );
    let expected = bench.import("tar:expected.tar");
    for layout in ["gzip", "zstd", "none"] {
        let digest = bench.import(&format!("oci:{layout}"));
        assert_eq!(
            digest,
            expected,
            "{}",
            bench.sh(&format!("diff <({}) <({}) || true", bench.tool(&format!("show {expected}")), bench.tool(&format!("show {digest}"))))
        );
    }
    bench.sh("tar -C gzip -cf archive.tar . && gzip -k archive.tar && tar -C zstd -cf - $(ls zstd) > other-order.tar");
    for archive in ["archive.tar", "archive.tar.gz", "other-order.tar"] {
        assert_eq!(bench.import(&format!("oci:{archive}")), expected);
    }
    let out = bench.sh(&format!("cat archive.tar | {}", bench.tool("import oci:- --as-is")));
    assert!(out.contains(&expected));
    let error = bench.refused("tar:archive.tar");
    assert!(error.contains("imported as oci:PATH"), "{error}");
}

#[test]
fn what_skopeo_makes_of_it_is_the_same_image() {
    if !has("skopeo") {
        return;
    }
    let bench = Bench::new();
    python(
        &bench,
        "layout = Layout('layout'); layout.image(LAYERS, tag='web'); layout.write(); open('expected.tar', 'wb').write(tar(EXPECTED))",
    );
    bench.sh("skopeo --insecure-policy copy -q oci:layout:web oci-archive:oci.tar:web; skopeo --insecure-policy copy -q oci:layout:web docker-archive:docker.tar:local/web:1; \
              skopeo --insecure-policy copy -q --dest-compress-format zstd oci:layout:web oci:zstd:web; mkdir docker; tar -C docker -xf docker.tar");
    let expected = bench.import("tar:expected.tar");
    for source in [
        "oci:oci.tar",
        "oci:docker.tar",
        "oci:docker",
        "oci:zstd",
        "oci:docker.tar --ref local/web:1",
        "oci:docker.tar --ref web:1",
        "oci:oci.tar --ref web",
    ] {
        assert_eq!(bench.import(source), expected, "{source}");
    }
    bench.sh("chmod u+w docker/*; printf x | dd of=docker/$(cd docker; ls -S *.tar | head -1) bs=1 seek=600 conv=notrunc status=none");
    let error = bench.refused("oci:docker");
    assert!(error.contains("expected the unpacked layer sha256:") || error.contains("found"), "{error}");
}

#[test]
fn one_image_is_meant_or_none_is_taken() {
    let bench = Bench::new();
    python(
        &bench,
        r#"
def one(text): return [tar([("a", text)])]
layout = Layout("arches"); layout.index([layout.image(one(b"amd"), listed=False), layout.image(one(b"arm"), arch="arm64", listed=False)]); layout.write()
layout = Layout("tags"); layout.image(one(b"1"), tag="1"); layout.image(one(b"2"), tag="registry/x:2"); layout.write()
layout = Layout("same"); layout.image(one(b"1"), tag="1"); layout.image(one(b"1"), tag="2"); layout.write()
attestation = Layout("attestation"); descriptor = attestation.image(one(b"real")); other = attestation.image(one(b"att"), arch="unknown", listed=False)
other["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}; attestation.manifests.append(other); attestation.write()
"#,
    );
    let holds = |source: &str, text: &str| {
        let index = bench.index(&bench.import(source));
        let sha = Digest::of(text.as_bytes()).to_string();
        assert!(index.contains(&sha), "{source}: {index}");
    };
    holds("oci:arches", "amd");
    holds("oci:arches --arch x86_64", "amd");
    holds("oci:arches --arch arm64", "arm");
    holds("oci:arches --arch aarch64", "arm");
    holds("oci:tags --ref 1", "1");
    holds("oci:tags --ref x:2", "2");
    holds("oci:same", "1");
    holds("oci:attestation", "real");
    let error = bench.refused("oci:arches --arch riscv64");
    assert!(
        error.contains("linux/amd64") && error.contains("linux/arm64") && error.contains("expected an image for linux/riscv64"),
        "{error}"
    );
    let error = bench.refused("oci:tags");
    assert!(
        error.contains("several images: 1 (linux/amd64, sha256:") && error.contains("registry/x:2") && error.contains("say which"),
        "{error}"
    );
    let error = bench.refused("oci:tags --ref 3");
    assert!(error.contains("with the tag \"3\""), "{error}");
}

#[test]
fn what_does_not_hash_or_is_no_image_is_refused() {
    let bench = Bench::new();
    python(
        &bench,
        r#"
import shutil
def fresh(name, **more):
    layout = Layout(name); descriptor = layout.image(LAYERS, **more); layout.write()
    manifest = json.load(open(name + "/blobs/sha256/" + descriptor["digest"][7:]))
    return layout, descriptor, manifest
def flip(path, at=-1):
    data = bytearray(open(path, "rb").read()); data[at] ^= 1; open(path, "wb").write(data)
_, d, m = fresh("layer", packing="none"); flip("layer/blobs/sha256/" + m["layers"][1]["digest"][7:])
_, d, m = fresh("gzip-layer"); flip("gzip-layer/blobs/sha256/" + m["layers"][1]["digest"][7:], 9)
_, d, m = fresh("manifest"); flip("manifest/blobs/sha256/" + d["digest"][7:], 20)
_, d, m = fresh("config"); flip("config/blobs/sha256/" + m["config"]["digest"][7:], 20)
_, d, m = fresh("gone"); os.remove("gone/blobs/sha256/" + m["layers"][2]["digest"][7:])
def changed(name, change):
    layout, d, m = fresh(name); change(m); layout.manifests = [layout.blob(json.dumps(m).encode(), "application/vnd.oci.image.manifest.v1+json")]; layout.write()
changed("encrypted", lambda m: m["layers"][0].update(mediaType="application/vnd.oci.image.layer.v1.tar+gzip+encrypted"))
changed("sha512", lambda m: m["layers"][0].update(digest="sha512:" + "0" * 128))
changed("size", lambda m: m["layers"][0].update(size=5))
changed("chart", lambda m: m["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json"))
changed("outside", lambda m: m["layers"][0].update(digest="sha256:../../../../etc/passwd"))
os.makedirs("nothing"); open("nothing/x", "w").write("x")
os.makedirs("json"); open("json/index.json", "w").write("{")
open("secret", "wb").write(tar([("s", b"s")]))
os.makedirs("saved"); config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [sha(open("secret", "rb").read())]}}).encode()
open("saved/c.json", "wb").write(config); open("saved/manifest.json", "w").write(json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["../secret"]}]))
shutil.copytree("saved", "saved-link"); os.symlink("../secret", "saved-link/l"); open("saved-link/manifest.json", "w").write(json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["l"]}]))
layout = Layout("up"); layout.image([tar([("../x", b"x")])]); layout.write()
layout = Layout("bad-whiteout"); layout.image([tar([("a/.wh...", b"x")])]); layout.write()
"#,
    );
    for (source, says) in [
        ("layer", "expected the layer sha256:"),
        ("gzip-layer", "expected the layer sha256:"),
        ("manifest", "expected sha256:"),
        ("config", "expected sha256:"),
        ("gone", "no part \"blobs/sha256/"),
        ("encrypted", "+encrypted"),
        ("sha512", "the digest \"sha512:"),
        ("size", "of 5 bytes"),
        ("chart", "found no image"),
        ("outside", "64 lower-case hexadecimal digits"),
        ("nothing", "neither index.json nor manifest.json"),
        ("json", "JSON as the OCI image specification"),
        ("saved", "no part \"../secret\""),
        ("saved-link", "no part \"l\""),
        ("up", "leads out of the image"),
        ("bad-whiteout", "one that names a file"),
    ] {
        let error = bench.refused(&format!("oci:{source}"));
        assert!(error.contains(says), "{source}: {error}");
    }
    assert!(objects(&bench.path("user/store")).is_empty());
}
