{ lib, system, overlays ? [ ] }:
let
  b = builtins;
  env = n: d: let v = b.getEnv n; in if v == "" then d else v;
  # Rejects a misspelt argument, as nixpkgs' functions with a closed argument set do.
  closed = fn: allowed: args: let bad = lib.filter (n: !(lib.elem n allowed)) (lib.attrNames args);
    in if bad == [ ] then args else throw "${fn}: unexpected argument(s) ${lib.concatStringsSep ", " bad}";
  # A node_modules that stands for the downloads of importNpmLock, where there is no network.
  installed = env "STANDIN_NODE_MODULES" "";
  hostPath = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
  mk = attrs: let
      meta = attrs.meta or { }; passthru = attrs.passthru or { };
      d = derivation ((removeAttrs attrs [ "meta" "passthru" "script" ]) // {
        inherit system; builder = "/bin/bash";
        args = [ "-c" ("set -euo pipefail; export PATH=${lib.concatMapStringsSep ":" (p: "${p}/bin") (attrs.nativeBuildInputs or [ ])}:${hostPath} HOME=$NIX_BUILD_TOP SOURCE_DATE_EPOCH=315532800 LC_ALL=C TZ=UTC; umask 022; cd $NIX_BUILD_TOP\n" + attrs.script + "\nexit 0") ];
        nativeBuildInputs = attrs.nativeBuildInputs or [ ];
      });
    in assert lib.assertMsg (attrs ? name) "derivation without a name"; d // { inherit meta; } // passthru;
  base = self: {
    inherit lib system;
    extend = o: import ./pkgs.nix { inherit lib system; overlays = overlays ++ [ o ]; };
    callPackage = f: args: let g = if b.isPath f then import f else f; in g (b.intersectAttrs (b.functionArgs g) self // args);

    runCommand = name: a: script: mk (a // { inherit name script; });
    writeText = name: text: mk { inherit name text; passAsFile = [ "text" ]; script = "cp $textPath $out"; };
    writeTextDir = p: text: mk { name = baseNameOf p; inherit text; passAsFile = [ "text" ]; script = "mkdir -p $out/$(dirname ${p}); cp $textPath $out/${p}"; };
    writeShellApplication = args0: let a = closed "writeShellApplication" [ "name" "text" "runtimeInputs" "runtimeEnv" "meta" "checkPhase" "excludeShellChecks" "bashOptions" "inheritPath" "passthru" ] args0; in mk {
      inherit (a) name text; passAsFile = [ "text" ]; meta = { mainProgram = a.name; } // (a.meta or { });
      script = ''mkdir -p $out/bin; { echo '#!/bin/bash'; echo 'set -euo pipefail'; echo 'export PATH="${lib.makeBinPath (a.runtimeInputs or [ ])}:$PATH"'; cat $textPath; } > $out/bin/${a.name}; chmod +x $out/bin/${a.name}; bash -n $out/bin/${a.name}'';
    };
    symlinkJoin = { name, paths, ... }: mk { inherit name paths; script = "mkdir -p $out; for p in $paths; do cp -rsf --no-preserve=mode $p/. $out/; done"; };
    fetchurl = { url, hash, name ? baseNameOf url }: mk {
      inherit name url; outputHash = hash; outputHashMode = "flat"; outputHashAlgo = null;
      script = "curl -sSfL --retry 3 -o $out $url"; preferLocalBuild = true;
    };
    # Host parts as store paths, made self-contained: own loader and libraries beside the binary.
    hostProgram = { pname, version ? "host", files, mainProgram ? pname, extra ? "" }: mk {
      name = "${pname}-${version}"; inherit files; meta = { inherit mainProgram; };
      script = ''
        mkdir -p $out/bin $out/lib
        for f in $files; do b=$(basename $f); cp $f $out/bin/''${b#*-}; done; chmod 755 $out/bin/*
        for f in $out/bin/*; do ldd $f 2>/dev/null | grep -o '/[^ ]*' | while read l; do cp -Ln $l $out/lib/; done || true; done
        chmod 644 $out/lib/* 2>/dev/null || true; chmod 755 $out/lib/ld-linux* 2>/dev/null || true
        for f in $out/bin/*; do if patchelf --print-interpreter $f >/dev/null 2>&1; then patchelf --set-interpreter $out/lib/ld-linux-x86-64.so.2 --set-rpath $out/lib $f; fi; done
        ${extra}'';
    };
    nodejs_24 = self.hostProgram { pname = "nodejs"; version = "24"; mainProgram = "node"; files = [ (b.path { path = env "STANDIN_NODE" "/usr/bin/node"; name = "node"; }) ]; };
    nftables = self.hostProgram { pname = "nftables"; mainProgram = "nft"; files = [ (b.path { path = "/usr/sbin/nft"; name = "nft"; }) ]; };
    util-linux = self.hostProgram { pname = "util-linux"; mainProgram = "mount"; files = map (n: b.path { path = "/usr/bin/${n}"; name = n; }) [ "mount" "umount" "nsenter" "unshare" ]; };
    # Of the development shell only: they are named, never built here.
    gcc = self.hostProgram { pname = "gcc"; files = [ ]; };
    gnumake = self.hostProgram { pname = "make"; files = [ ]; };
    containerd = self.hostProgram { pname = "containerd"; files = [ ]; };
    runc = self.hostProgram { pname = "runc"; files = [ ]; };
    crun = self.hostProgram { pname = "crun"; files = [ ]; };
    nixfmt-tree = self.hostProgram { pname = "nixfmt-tree"; mainProgram = "treefmt"; files = [ ]; };
    iproute2 = self.hostProgram { pname = "iproute2"; mainProgram = "ip"; files = [ (b.path { path = "/usr/sbin/ip"; name = "ip"; }) ]; };
    cacert = mk { name = "nss-cacert"; src = b.path { path = "/etc/ssl/certs/ca-certificates.crt"; name = "ca-bundle.crt"; }; script = "mkdir -p $out/etc/ssl/certs; cp $src $out/etc/ssl/certs/ca-bundle.crt"; };
    bashInteractive = self.hostProgram { pname = "bash"; files = [ (b.path { path = "/bin/bash"; name = "bash"; }) ]; };
    pkgsStatic.stdenv.mkDerivation = a: self.stdenv.mkDerivation (a // { NIX_STATIC = "1"; });
    stdenv = { hostPlatform = { inherit system; isLinux = true; isx86_64 = true; isStatic = false; }; mkDerivation = a0: let a = if b.isFunction a0 then lib.fix (f: a0 f) else a0; in
      assert lib.assertMsg (a ? pname && a ? version || a ? name) "mkDerivation: pname+version or name"; mk (removeAttrs a [ "strictDeps" "doCheck" ] // {
        name = a.name or "${a.pname}-${a.version}";
        script = ''cp -r $src source; chmod -R u+w source; cd source
          CC="gcc ''${NIX_STATIC:+-static}"; runHook() { eval "''${!1:-}"; }; ${a.buildPhase or "make"}
          ${a.installPhase or "make install PREFIX=$out"}'';
      }); };
    mkShell = args0: let a = closed "mkShell" [ "name" "packages" "inputsFrom" "buildInputs" "nativeBuildInputs" "shellHook" "env" ] args0; in mk { name = a.name or "nix-shell"; nativeBuildInputs = a.packages or [ ]; script = "echo dev > $out"; };

    # importNpmLock: every registry entry becomes a fetchurl with its own integrity.
    importNpmLock = {
      npmConfigHook = "import-npm-lock-hook";
      __functor = _: args0: let
          a = closed "importNpmLock" [ "npmRoot" "package" "packageLock" "pname" "version" "fetcherOpts" "packageSourceOverrides" ] args0;
          package = a.package or (lib.importJSON (a.npmRoot + "/package.json"));
          lock = a.packageLock or (lib.importJSON (a.npmRoot + "/package-lock.json"));
          # As nixpkgs does: a URL becomes a fetchurl, a relative path (a workspace link) a path under npmRoot, and `link` is dropped.
          entry = k: m: removeAttrs m [ "link" "funding" ] // lib.optionalAttrs (m ? resolved) {
              resolved = "file:${if lib.match "(.+)://(.+)" m.resolved == null then a.npmRoot + "/${m.resolved}" else self.fetchurl { url = m.resolved; hash = m.integrity or (throw "importNpmLock: ${k} has no integrity"); }}";
            } // lib.optionalAttrs (m ? integrity && !(m ? resolved)) (throw "importNpmLock: ${k} has no `resolved`: npm would go to the network inside the sandbox");
          lock' = lock // { packages = lib.mapAttrs entry lock.packages; };
          pin = lib.mapAttrs (n: v: let e = lock'.packages."node_modules/${n}" or { }; in if lib.hasPrefix "file:" (e.resolved or "") then e.resolved else v);
          package' = package // lib.optionalAttrs (package ? dependencies) { dependencies = pin package.dependencies; } // lib.optionalAttrs (package ? devDependencies) { devDependencies = pin package.devDependencies; };
        in if installed != "" then mk { name = "npm-installed"; script = "echo ${installed} > $out"; } else
          mk { name = "npm-sources"; pj = lib.toJSON package'; pl = lib.toJSON lock'; passAsFile = [ "pj" "pl" ]; script = "mkdir $out; cp $pjPath $out/package.json; cp $plPath $out/package-lock.json"; };
    };
    buildNpmPackage = args0: let a = if b.isFunction args0 then lib.fix args0 else args0; in
      assert lib.assertMsg (a ? pname && a ? version && a ? src) "buildNpmPackage: pname, version and src are needed";
      assert lib.assertMsg ((a ? npmDepsHash) != (a ? npmDeps)) "buildNpmPackage: exactly one of npmDepsHash / npmDeps";
      assert lib.assertMsg (!(a ? npmDeps) || a ? npmConfigHook) "buildNpmPackage: npmDeps of importNpmLock needs npmConfigHook = importNpmLock.npmConfigHook";
      mk ((removeAttrs a [ "npmConfigHook" "nodejs" "doCheck" ]) // {
        name = "${a.pname}-${a.version}"; meta = a.meta or { };
        nodeDir = a.nodejs or self.nodejs_24;
        script = ''
          export PATH=$nodeDir/bin:$PATH npm_config_cache=$NIX_BUILD_TOP/npm npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false npm_config_userconfig=/dev/null
          runHook() { eval "''${!1:-}"; }
          cp -r $src source; chmod -R u+w source; cd source
          ${if installed != "" then ''
          # The workspace's own packages are links into the source; all others are the checkout's.
          mkdir node_modules
          for entry in ${installed}/*; do case $(basename $entry) in @fast-sandbox) cp -P -r $entry node_modules/ ;; *) ln -s $entry node_modules/ ;; esac; done
          ln -s ${installed}/.bin node_modules/.bin'' else ''
          mv package.json ../pj.orig; mv package-lock.json ../pl.orig
          cp --no-preserve=mode $npmDeps/package.json $npmDeps/package-lock.json .
          npm install --ignore-scripts ''${npmFlags:-}
          npm rebuild ''${npmFlags:-}
          cp ../pj.orig package.json; cp ../pl.orig package-lock.json''}
          npm run ${a.npmBuildScript or "build"}
          ${lib.optionalString (a.doCheck or false) (a.checkPhase or "npm test")}
          ${a.installPhase or "echo 'stand-in: give an installPhase' >&2; exit 1"}
        '';
      });

    dockerTools = let
      allowed = [ "name" "tag" "fromImage" "contents" "config" "architecture" "created" "mtime" "uid" "gid" "uname" "gname" "maxLayers" "extraCommands" "fakeRootCommands" "enableFakechroot" "includeStorePaths" "includeNixDB" "passthru" "layeringPipeline" "debug" "meta" "compressor" ];
      cfgKeys = [ "Entrypoint" "Cmd" "Env" "User" "WorkingDir" "ExposedPorts" "Volumes" "Labels" "StopSignal" "Healthcheck" ];
      # extraCommands and fakeRootCommands run with the same shell; owner ids come out right because this runs as root.
      layered = fn: args0: let
          a = closed fn allowed args0;
          cfg = a.config or { };
          bad = lib.filter (k: !(lib.elem k cfgKeys)) (lib.attrNames cfg);
          conf = { inherit (a) name; tag = a.tag or null; created = a.created or "1970-01-01T00:00:01Z"; maxLayers = a.maxLayers or 100; config = cfg; architecture = "amd64"; uid = a.uid or 0; gid = a.gid or 0; };
        in
        assert lib.assertMsg (a ? name) "${fn}: name is needed";
        assert lib.assertMsg (bad == [ ]) "${fn}: config has unknown key(s) ${toString bad}";
        assert lib.assertMsg (a ? config -> (cfg ? Entrypoint || cfg ? Cmd)) "${fn}: neither Entrypoint nor Cmd";
        mk {
          name = "${baseNameOf a.name}.tar.gz";
          conf = lib.toJSON conf; passAsFile = [ "conf" ];
          contents = a.contents or [ ];
          exportReferencesGraph = [ "closure" (mk { name = "roots"; roots = lib.toJSON { c = a.contents or [ ]; k = cfg; }; script = "echo \"$roots\" > $out"; }) ];
          extra = a.extraCommands or ""; fake = a.fakeRootCommands or "";
          passthru = { imageName = a.name; imageTag = a.tag or "latest"; } // (a.passthru or { });
          script = ''
            mkdir root; for c in $contents; do cp -rs --no-preserve=mode $c/. root/ 2>/dev/null || true; done
            (cd root; eval "$extra"; eval "$fake")
            ${env "STANDIN_NODE" "/usr/bin/node"} ${./write-image.mjs} $confPath closure root $NIX_BUILD_TOP/image.tar
            gzip -n -1 < image.tar > $out'';
        };
      in {
        buildLayeredImage = layered "buildLayeredImage";
        streamLayeredImage = a: let img = layered "streamLayeredImage" a; in mk { name = "stream-${baseNameOf a.name}"; inherit img; passthru = img.passthru or { } // { inherit (img) imageName imageTag; }; script = ''printf '#!/bin/sh\nexec gzip -dc %s\n' $img > $out; chmod +x $out''; };
        caCertificates = self.cacert; fakeNss = mk { name = "fake-nss"; script = ''mkdir -p $out/etc; echo 'root:x:0:0:root:/var/empty:/bin/sh' > $out/etc/passwd; echo 'nobody:x:65534:65534:nobody:/var/empty:/bin/sh' >> $out/etc/passwd; printf 'root:x:0:\nnobody:x:65534:\n' > $out/etc/group; echo 'hosts: files dns' > $out/etc/nsswitch.conf''; };
      };
  };
in lib.fix (self: (b.foldl' (acc: o: acc // o self acc) (base self)) overlays)
