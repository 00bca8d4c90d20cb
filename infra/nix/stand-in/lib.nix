# The subset of nixpkgs' lib that the flake may use; an attribute missing here fails evaluation loudly.
let
  b = builtins;
  lib = rec {
    inherit (b) attrNames attrValues baseNameOf concatLists concatMap concatStringsSep elem elemAt filter
      fromJSON genList hasAttr head isAttrs isBool isList isString length listToAttrs map mapAttrs match readFile removeAttrs
      replaceStrings split stringLength substring tail toJSON toString;
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: f: listToAttrs (map (n: nameValuePair n (f n)) names);
    filterAttrs = p: s: removeAttrs s (filter (n: !(p n s.${n})) (attrNames s));
    mapAttrs' = f: s: listToAttrs (map (n: f n s.${n}) (attrNames s));
    mapAttrsToList = f: s: map (n: f n s.${n}) (attrNames s);
    optional = c: x: if c then [ x ] else [ ];
    optionals = c: xs: if c then xs else [ ];
    optionalAttrs = c: s: if c then s else { };
    optionalString = c: s: if c then s else "";
    concatMapStringsSep = sep: f: xs: concatStringsSep sep (map f xs);
    hasPrefix = p: s: substring 0 (stringLength p) s == p;
    hasSuffix = p: s: let n = stringLength s - stringLength p; in n >= 0 && substring n (stringLength p) s == p;
    removePrefix = p: s: if hasPrefix p s then substring (stringLength p) (stringLength s) s else s;
    last = xs: elemAt xs (length xs - 1);
    splitString = sep: s: filter isString (split (escapeRegex sep) s);
    escapeRegex = replaceStrings [ "." "+" "*" "?" "(" ")" "[" "]" "{" "}" "^" "$" "|" "\\" ] [ "\\." "\\+" "\\*" "\\?" "\\(" "\\)" "\\[" "\\]" "\\{" "\\}" "\\^" "\\$" "\\|" "\\\\" ];
    escapeShellArg = s: "'" + replaceStrings [ "'" ] [ "'\\''" ] (toString s) + "'";
    importJSON = p: fromJSON (readFile p);
    assertMsg = p: m: p || b.throw m;
    fix = f: let x = f x; in x;
    licenses = genAttrs [ "mit" "asl20" "bsd3" "isc" "agpl3Only" ] (spdxId: { inherit spdxId; });
    platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
    getBin = d: d.bin or d;
    getExe = d: "${getBin d}/bin/${d.meta.mainProgram or (b.throw "getExe: ${d.name} has no meta.mainProgram")}";
    getExe' = d: n: "${getBin d}/bin/${n}";
    makeBinPath = concatMapStringsSep ":" (d: "${getBin d}/bin");
    # fileset: a set is { __fs = path -> type -> bool; }; only what toSource/unions/gitTracked-free use needs.
    fileset = rec {
      coerce = x: if b.isPath x then fromPath x else x;
      fromPath = p: assert assertMsg (b.pathExists p) "fileset: ${toString p} does not exist"; let s = toString p; in {
        has = q: q == s || hasPrefix (s + "/") q;
        above = q: hasPrefix (q + "/") s;
      };
      unions = xs: let ys = map coerce xs; in { has = q: b.any (y: y.has q) ys; above = q: b.any (y: y.above q) ys; };
      union = a: c: unions [ a c ];
      difference = a: c: let x = coerce a; y = coerce c; in { has = q: x.has q && !(y.has q); above = q: x.above q || x.has q; };
      maybeMissing = p: if b.pathExists p then fromPath p else { has = _: false; above = _: false; };
      fileFilter = f: p: let x = fromPath p; in { has = q: x.has q && f { name = baseNameOf q; hasExt = e: hasSuffix ("." + e) q; type = "regular"; }; above = q: x.above q || x.has q; };
      toSource = { root, fileset }: let x = coerce fileset; r = toString root; in {
        outPath = b.path { name = "source"; path = root; filter = q: t: if t == "directory" then x.has q || x.above q else x.has q; };
        origSrc = root;
      };
    };
  };
in lib
