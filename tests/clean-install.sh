#!/usr/bin/env bash
# Installs the built package as a stranger would: from a local repository, in an empty home, without this source tree, without NuGet's folder, without
# the variables of this shell, and where the kernel allows it without a network. Then installs the runtime from a folder of packages, adapts, trains,
# classifies, merges and exports.
# usage: clean-install.sh MODULE LIBTORCH_PACKAGES PWSH...
#   MODULE             folder of the module as it is packed (dotnet build src/LoKr.PowerShell -t:LayoutModule)
#   LIBTORCH_PACKAGES  folder with the nupkg of libtorch for the CPU, for example ~/.nuget/packages/libtorch-cpu-linux-x64
#   PWSH...            command that starts PowerShell, for example: dotnet /path/to/pwsh.dll
set -euo pipefail
module=$(realpath "$1"); packages=$(realpath "$2"); shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
mkdir "$clean"/{home,tmp,work,packages,repository}
find "$packages" -name 'libtorch-cpu-*.nupkg' -exec cp {} "$clean/packages/" \;
cp -r "$module" "$clean/LoKr"
cp -r "$here/../examples/models/tiny-encoder" "$here/../examples/data/tickets.train.jsonl" "$here/../examples/data/tickets.eval.jsonl" "$clean/work/"
cp "$here/clean-install.ps1" "$clean/work/"
isolated=()
if unshare --net true 2>/dev/null; then isolated=(unshare --net); fi
cd "$clean/work"
"${isolated[@]}" env -i "PATH=$PATH" "HOME=$clean/home" "TMPDIR=$clean/tmp" NO_COLOR=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 POWERSHELL_TELEMETRY_OPTOUT=1 \
    "$@" -NoProfile -NonInteractive -File ./clean-install.ps1 -Module "$clean/LoKr" -Repository "$clean/repository" -Packages "$clean/packages" \
    -HasNetwork:"$([ ${#isolated[@]} -eq 0 ] && echo '$true' || echo '$false')"
