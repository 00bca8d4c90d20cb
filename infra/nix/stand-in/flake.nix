{
  description = "Offline stand-in for the few nixpkgs attributes this project's flake uses";
  outputs = { self }: rec {
    lib = import ./lib.nix;
    legacyPackages.aarch64-linux = import ./pkgs.nix { inherit lib; system = "aarch64-linux"; };
    legacyPackages.x86_64-linux = import ./pkgs.nix { inherit lib; system = "x86_64-linux"; };
  };
}
