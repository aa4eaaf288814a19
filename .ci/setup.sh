#!/bin/sh
# Makes the checkout ready to run: Debian packages, a virtual environment in .venv, Python packages.
#
#   .ci/setup.sh run    what the command needs
#   .ci/setup.sh dev    that, and what the tests need; with it the lab, whose guests have real LVM and NFS
#
# Installs only what is missing and says what. When nothing is missing it takes some hundredths of a second: a stamp in
# .venv records the place, the interpreter, the hash of what was asked for, and the level. The stamp is
# taken away before a change and comes back after it, so an interrupted run is followed by a new environment.
# Two runs at once: the second waits. All output goes to standard error; standard output belongs to the caller.
set -eu

level=${1:-run}
case $level in
run) extras='' ;;
dev) extras='[dev]' ;;
*) echo "usage: setup.sh run|dev" >&2 && exit 2 ;;
esac

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=$root/.venv
stamp=$venv/.diskwright-setup
exec </dev/null 1>&2

say() { printf 'setup: %s\n' "$*"; }
die() { say "$*" && exit 1; }
twice() { "$@" || { say "that failed; trying once more" && "$@"; }; }

# --- stamp: line 1 place, 2 interpreter, 3 hash of what was asked for, 4 level ----------------------------------------

place_and_python() { printf '%s\n%s\n' "$root" "$("$venv/bin/python" -V 2>&1)"; }
wanted_hash() { cat "$root/pyproject.toml" "$root/.ci/setup.sh" | sha256sum | cut -d' ' -f1; }

same_environment() {
    [ -f "$stamp" ] && [ -x "$venv/bin/python" ] && [ "$(head -n 2 "$stamp")" = "$(place_and_python)" ]
}

environment_ready() {
    same_environment && [ "$(sed -n 3p "$stamp")" = "$(wanted_hash)" ] || return 1
    [ "$level" = run ] || [ "$(sed -n 4p "$stamp")" = dev ]
}

write_stamp() {
    { place_and_python && wanted_hash && echo "$level"; } >"$stamp.new"
    mv "$stamp.new" "$stamp"
}

# --- Python -----------------------------------------------------------------------------------------------------------

# Prints the interpreter to use, the base one if a virtual environment is active: .venv must not be made from itself.
# $1: modules it must have. `python3` comes first: whoever set it up chose it.
find_python() {
    for name in python3 python3.11 python3.12 python3.13 python3.14; do
        "$name" -c "
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
import $1
print(getattr(sys, '_base_executable', None) or sys.executable)" 2>/dev/null && return 0
    done
    return 1
}

pythons_seen() {
    for name in python3 python3.11 python3.12 python3.13 python3.14; do
        command -v "$name" >/dev/null && "$name" -V 2>/dev/null
    done | sort -u | tr '\n' ' '
}

# --- Debian packages --------------------------------------------------------------------------------------------------

# Prints the package $2 if there is no program $1; most of these are in directories that only root has in its PATH.
unless() { (PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null) || printf '%s ' "$2"; }

lab_packages() {
    unless linux.uml user-mode-linux
    unless lvm lvm2
    unless dmsetup dmsetup
    unless rpc.nfsd nfs-kernel-server
    unless mount.nfs4 nfs-common
    unless sanlock sanlock
    unless modprobe kmod
    unless ip iproute2
    unless mkfs.xfs xfsprogs
    unless mkfs.ext4 e2fsprogs
}

# The binding is a module of the distribution's Python: the engine finds it where .venv has the same one.
libvirt_packages() {
    unless libvirtd libvirt-daemon
    [ -e /usr/lib/python3/dist-packages/libvirt.py ] || printf 'python3-libvirt '
}

missing_packages() {
    unless qemu-img qemu-utils
    [ "$level" = run ] || { lab_packages && unless tmux tmux && unless chromium chromium; }
    [ "$level" = run ] || { unless xz xz-utils && unless zstd zstd; }
    [ "$level" = run ] || { unless qemu-storage-daemon qemu-system-common && unless qemu-system-x86_64 qemu-system-x86; }
    [ "$level" = run ] || libvirt_packages
    if ! same_environment && ! find_python ensurepip,venv >/dev/null; then
        find_python sys >/dev/null || printf 'python3 '
        printf 'python3-venv '
    fi
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null
}

# Descriptor 9 is the lock of this script; what a package starts must not keep it.
apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" 9>&-; }
# shellcheck disable=SC2086 # a list of package names
install_packages() { apt update && apt install -y --no-install-recommends $1 >/dev/null; }

ensure_packages() {
    missing=$(missing_packages)
    missing=${missing% }
    [ -n "$missing" ] || return 0
    if may_install; then
        say "installing Debian packages: $missing"
        twice install_packages "$missing" || die "apt-get could not install: $missing"
        return 0
    fi
    say "missing, and no right to install it here. Run this as root:"
    say "    apt-get update && apt-get install -y --no-install-recommends $missing"
    command -v qemu-img >/dev/null || die "cannot go on without qemu-img"
}

# --- virtual environment ----------------------------------------------------------------------------------------------

make_environment() {
    [ ! -e "$venv" ] || { say "removing .venv: unfinished, moved, or made otherwise" && rm -rf "$venv"; }
    if python=$(find_python ensurepip,venv); then
        say "making .venv with $python ($("$python" -V))"
        "$python" -m venv "$venv" || die "could not make $venv"
    elif python=$(find_python sys); then
        command -v virtualenv >/dev/null ||
            die "$python has no ensurepip and there is no virtualenv: install the package python3-venv as root"
        say "making .venv with virtualenv and $python ($("$python" -V))"
        virtualenv -q -p "$python" "$venv" || die "could not make $venv"
    else
        die "no Python 3.11 or newer among python3, python3.11 to python3.14; found: $(pythons_seen)"
    fi
}

pip_install() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check -e "$root$extras"; }

ensure_environment() {
    same_environment || make_environment
    rm -f "$stamp"
    say "installing Python packages: diskwright$extras and what it needs"
    twice pip_install || die "pip could not install diskwright$extras"
    write_stamp
    say "ready"
}

# --- a Linux guest ----------------------------------------------------------------------------------------------------
# A kernel, its modules and a busybox without libraries: unpacked into .venv/guest for tests, and not installed. In the
# folder "agent" there: qemu's guest agent with its libraries, as they are on this machine; empty where one is not.

guest_wanted() {
    [ "$level" = dev ] && [ ! -e "$venv/guest/agent" ] && command -v dpkg-deb >/dev/null && command -v apt-get >/dev/null &&
        [ "$(dpkg --print-architecture)" = amd64 ]
}

guest_kernel() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p'; }

# In directory $1, which gets a folder "guest" instead of what an interrupted run has left there. Links by && : set -e does
# not hold where a failure is asked for.
unpack_guest() (
    cd "$1" && rm -rf ./* &&
        { [ -n "$(guest_kernel)" ] || apt update; } &&
        apt-get -qq -o APT::Sandbox::User=root download "$(guest_kernel)" busybox-static qemu-guest-agent &&
        for package in *.deb; do dpkg-deb -x "$package" unpacked || exit 1; done &&
        mkdir guest && find unpacked -name 'virtio*.ko' -exec cp {} guest/ \; &&
        cp unpacked/bin/busybox guest/ && cp unpacked/boot/vmlinuz-* guest/vmlinuz && unpack_agent
)

unpack_agent() {
    libraries=$(ldd unpacked/usr/sbin/qemu-ga) && mkdir guest/agent || return 1
    case $libraries in *'not found'*) return 0 ;; esac
    for library in $(echo "$libraries" | sed -n 's/^.*[ \t]\(\/[^ ]*\) (0x.*$/\1/p'); do
        cp --parents -L "$library" guest/agent/ || return 1
    done
    cp unpacked/usr/sbin/qemu-ga guest/agent/
}

ensure_guest() {
    guest_wanted || return 0
    say "unpacking a kernel for a guest into .venv/guest"
    scratch=$venv/guest.new
    mkdir -p "$scratch"
    if twice unpack_guest "$scratch"; then
        rm -rf "$venv/guest"
        mv "$scratch/guest" "$venv/guest"
    else
        say "no kernel for a guest could be had: the tests with a Linux guest are skipped"
    fi
    rm -rf "$scratch"
}

# --- here it starts ---------------------------------------------------------------------------------------------------

if environment_ready && [ -z "$(missing_packages)" ] && ! guest_wanted; then exit 0; fi
[ -w "$root" ] || die "$root cannot be written by $(id -un); set-up makes .venv in it"
exec 9>"$root/.setup.lock"
flock -n 9 || { say "waiting for another set-up of this checkout" && flock 9; }
ensure_packages
environment_ready || ensure_environment
ensure_guest
