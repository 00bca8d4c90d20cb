# package-lock.json with every registry entry completed: a lock that is written with npm's omit-lockfile-registry-resolved
# has no `resolved`, and importNpmLock needs it. The integrity hash pins the content, wherever it comes from. Optional
# packages for other platforms are left out.
{
  lib,
  lockFile,
  os ? "linux",
  cpu ? "x64",
  registry ? "https://registry.npmjs.org",
}:
let
  lock = lib.importJSON lockFile;
  includes = wanted: given: lib.elem wanted (if lib.isList given then given else [ given ]);
  complete =
    key: entry:
    if !(entry ? integrity) || entry ? resolved then
      entry
    else
      let
        name = entry.name or (lib.last (lib.splitString "node_modules/" key));
        base = lib.last (lib.splitString "/" name);
      in
      entry // { resolved = "${registry}/${name}/-/${base}-${entry.version}.tgz"; };
  isForUs = _: entry: !(entry.optional or false) || (includes os (entry.os or os) && includes cpu (entry.cpu or cpu));
in
lock // { packages = lib.mapAttrs complete (lib.filterAttrs isForUs lock.packages); }
