#!/usr/bin/env bash
# Builds headroom as a static binary for each PLATFORM (linux/amd64, linux/arm64) and prints PLATFORM=FILE for each:
#   deploy/image/build.sh linux/amd64 linux/arm64
# Without a PLATFORM it is this machine's. Another architecture needs Rust's standard library for it and a C
# cross-compiler: docs/image.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${CARGO:=cargo}" "${CARGO_TARGET_DIR:=target}"
# The image carries no debug information: none is made.
export CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_DEBUG=0

fail() {
  echo "build.sh: $*" >&2
  exit 1
}

machine_of() {
  case $1 in
  linux/amd64) echo x86_64 ;;
  linux/arm64) echo aarch64 ;;
  *) fail "no platform $1: linux/amd64 and linux/arm64 are known" ;;
  esac
}

# Whether the compiler given has the standard library for the target given.
has_library() { compgen -G "$("$1" --print sysroot)/lib/rustlib/$2/lib/libstd-*.rlib" >/dev/null; }

# The compiler that can make the target: the one in use, with rustup's help if need be, else Debian's.
compiler_for() {
  local target=$1
  local debian=/usr/bin/rustc
  if has_library rustc "$target" || { rustup target add "$target" >&2 && has_library rustc "$target"; }; then
    command -v rustc
  elif [[ -x $debian ]] && has_library "$debian" "$target"; then
    echo "$debian"
  else
    local architecture=amd64
    [[ $target == aarch64-* ]] && architecture=arm64
    fail "no Rust standard library for $target: \`rustup target add $target\`, or on Debian" \
      "\`dpkg --add-architecture $architecture && apt-get update && apt-get install rustc-web libstd-rust-web-dev:$architecture\`"
  fi
}

build() {
  local platform=$1 machine target variable compiler
  machine=$(machine_of "$platform")
  target=$machine-unknown-linux-gnu
  variable=${target//-/_}
  compiler=$(compiler_for "$target")
  if [[ $machine != "$(uname -m)" ]]; then
    local cross=$machine-linux-gnu-gcc
    command -v "$cross" >/dev/null ||
      fail "no C compiler for $machine: on Debian \`apt-get install gcc-${machine//_/-}-linux-gnu libc6-dev-${platform#linux/}-cross\`"
    export "CC_$variable=$cross" "CARGO_TARGET_${variable^^}_LINKER=$cross"
  fi
  export "CARGO_TARGET_${variable^^}_RUSTFLAGS=-C target-feature=+crt-static"
  RUSTC=$compiler "$CARGO" build --locked --release --target "$target" --package headroom --bin headroom >&2
  local binary=$CARGO_TARGET_DIR/$target/release/headroom
  [[ $(readelf --program-headers "$binary") != *INTERP* ]] || fail "$binary asks for a dynamic linker: it is not static"
  echo "$platform=$binary"
}

if ((!$#)); then
  case $(uname -m) in
  x86_64) set -- linux/amd64 ;;
  aarch64) set -- linux/arm64 ;;
  *) fail "no image can be built for $(uname -m): name a platform" ;;
  esac
fi
for platform in "$@"; do
  build "$platform"
done
