{
  description = "Fast Sandbox: containers in milliseconds on Kubernetes or on one machine";

  # No lock file yet: `nix flake lock` writes one where there is a network to nixpkgs.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      # node_modules of other platforms are left out of the lock, so each system names its own.
      platforms = {
        x86_64-linux = "x64";
        aarch64-linux = "arm64";
      };
      forAllSystems =
        f: lib.genAttrs (lib.attrNames platforms) (system: f nixpkgs.legacyPackages.${system} self.packages.${system});
      version = (lib.importJSON ./package.json).version;
      src = lib.fileset.toSource {
        root = ./.;
        fileset = lib.fileset.unions [
          ./package.json
          ./package-lock.json
          ./tsconfig.json
          ./packages
        ];
      };
    in
    {
      overlays.default = final: prev: {
        fast-sandbox = self.packages.${final.stdenv.hostPlatform.system};
      };

      packages = forAllSystems (
        pkgs: self':
        let
          node = lib.getExe pkgs.nodejs_24;

          # The layers of Debian's part, node and our file differ from those of `make images`; names, user and
          # arguments are the same.
          image =
            name:
            {
              user ? "65532:65532",
              contents ? [ ],
              env ? [ ],
              nodeOptions ? [ "--max-semi-space-size=2" ],
            }:
            pkgs.dockerTools.buildLayeredImage {
              name = "docker.io/fast-sandbox/${name}";
              tag = version;
              maxLayers = 40;
              contents = [
                pkgs.dockerTools.caCertificates
                pkgs.dockerTools.fakeNss
              ]
              ++ contents;
              extraCommands = "mkdir -m 1777 tmp";
              config = {
                Entrypoint = [ node ] ++ nodeOptions ++ [
                  "${self'.bundles}/lib/fast-sandbox/${name}.cjs"
                ];
                User = user;
                WorkingDir = "/";
                Env = [
                  "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"
                  # As in infra/images/main.ts, which says why.
                  "MALLOC_ARENA_MAX=1"
                  "MALLOC_MMAP_THRESHOLD_=131072"
                  "MALLOC_TRIM_THRESHOLD_=131072"
                ]
                ++ env;
                Labels."org.opencontainers.image.version" = version;
              };
            };
        in
        {
          default = self'.fsb-ctl;

          # fsb-ctl with everything that `fsb-ctl up` starts.
          fsb-ctl = pkgs.writeShellApplication {
            name = "fsb-ctl";
            text = ''
              exec ${node} ${self'.bundles}/lib/fast-sandbox/fsb-ctl.cjs "$@"
            '';
            meta = {
              description = "Runs programs in sandboxes that start in milliseconds";
              license = lib.licenses.mit;
              mainProgram = "fsb-ctl";
            };
          };

          # The one npm build; every program is files of it, the native ones beside the bundles as fsb-ctl expects them.
          bundles = pkgs.buildNpmPackage {
            pname = "fast-sandbox-bundles";
            inherit version src;
            nodejs = pkgs.nodejs_24;
            npmDeps = pkgs.importNpmLock {
              npmRoot = ./.;
              packageLock = import ./infra/nix/npm-lock.nix {
                inherit lib;
                lockFile = ./package-lock.json;
                cpu = platforms.${pkgs.stdenv.hostPlatform.system};
              };
            };
            npmConfigHook = pkgs.importNpmLock.npmConfigHook;
            npmFlags = [ "--ignore-scripts" ];
            dontNpmInstall = true;
            installPhase = ''
              runHook preInstall
              mkdir -p $out/lib/fast-sandbox
              cp dist/*.cjs dist/*.cjs.map dist/packages.json $out/lib/fast-sandbox/
              cp ${self'.native}/bin/* $out/lib/fast-sandbox/
              runHook postInstall
            '';
            meta.license = lib.licenses.mit;
          };

          # Static programs that run in containers' namespaces; they use no C library.
          native = pkgs.pkgsStatic.stdenv.mkDerivation {
            pname = "fast-sandbox-native";
            inherit version;
            src = ./packages/agent/native;
            buildPhase = ''
              runHook preBuild
              make OUT=$PWD/out CC="$CC"
              runHook postBuild
            '';
            installPhase = ''
              runHook preInstall
              mkdir -p $out/bin
              cp out/* $out/bin/
              runHook postInstall
            '';
            meta = {
              license = lib.licenses.mit;
              mainProgram = "fsb-logger";
            };
          };

          image-controller = image "controller" { };

          image-agent = image "agent" {
            user = "0:0";
            contents = [
              pkgs.iproute2
              pkgs.nftables
              pkgs.util-linux
            ];
            env = [
              "PATH=/bin"
              "FSB_NATIVE_DIR=${self'.native}/bin"
            ];
          };

          image-janitor = image "janitor" {
            user = "0:0";
            contents = [
              pkgs.iproute2
              pkgs.util-linux
            ];
            env = [ "PATH=/bin" ];
            nodeOptions = [
              "--max-semi-space-size=1"
              "--lite-mode"
            ];
          };
        }
      );

      apps = forAllSystems (
        _: self': {
          default = {
            type = "app";
            program = lib.getExe self'.fsb-ctl;
            meta.description = "fsb-ctl, the command line";
          };
        }
      );

      devShells = forAllSystems (
        pkgs: _: {
          default = pkgs.mkShell {
            packages = [
              pkgs.nodejs_24
              pkgs.gcc
              pkgs.gnumake
              pkgs.containerd
              pkgs.runc
              pkgs.crun
              pkgs.iproute2
              pkgs.nftables
            ];
          };
        }
      );

      checks = forAllSystems (
        pkgs: self': {
          runs = pkgs.runCommand "fast-sandbox-runs" { } ''
            ${lib.getExe self'.fsb-ctl} --version | tee $out
            grep -q "fsb-ctl ${version}" $out
            test -x ${self'.native}/bin/fsb-logger
            test -s ${self'.bundles}/lib/fast-sandbox/controller.cjs
          '';
        }
      );

      formatter = forAllSystems (pkgs: _: pkgs.nixfmt-tree);
    };
}
