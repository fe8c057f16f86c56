package kubelet

import (
	"path/filepath"
	"sort"
	"strings"
)

// mount is one volumeMount: what the container calls Inside lies at Outside.
type mount struct{ Inside, Outside string }

// view is a container's view of files and addresses. There is neither a mount nor a network namespace, so the text of the pod spec is
// rewritten: mount paths become the directories behind them, and the wildcard and loopback addresses become the pod's own.
type view struct {
	mounts []mount
	ip     string
}

func newView(mounts []mount, ip string) view {
	sorted := append([]mount{}, mounts...)
	for i := range sorted {
		sorted[i].Inside = filepath.Clean(sorted[i].Inside)
	}
	sort.SliceStable(sorted, func(a, b int) bool { return len(sorted[a].Inside) > len(sorted[b].Inside) })
	return view{mounts: sorted, ip: ip}
}

// addressWords stand for the pod itself, in a pod.
var addressWords = []string{"0.0.0.0", "127.0.0.1", "[::]", "[::1]"}

// rewrite gives the text as a process without namespaces needs it. One pass: what has been put in is not looked at again.
func (v view) rewrite(text string) string {
	if text == "::" {
		return v.ip
	}
	var out strings.Builder
	for at := 0; at < len(text); {
		word, replacement := v.match(text, at)
		if word == "" {
			out.WriteByte(text[at])
			at++
			continue
		}
		out.WriteString(replacement)
		at += len(word)
	}
	return out.String()
}

func (v view) rewriteAll(texts []string) []string {
	result := make([]string, len(texts))
	for i, text := range texts {
		result[i] = v.rewrite(text)
	}
	return result
}

// match is the word that begins at the position and what takes its place.
func (v view) match(text string, at int) (word, replacement string) {
	rest := text[at:]
	for _, mount := range v.mounts {
		if strings.HasPrefix(rest, mount.Inside) && pathBegins(text[:at]) && pathEnds(rest[len(mount.Inside):]) {
			return mount.Inside, mount.Outside
		}
	}
	for _, address := range addressWords {
		if strings.HasPrefix(rest, address) && addressBegins(text[:at]) && addressEnds(rest[len(address):]) {
			return address, v.ip
		}
	}
	return "", ""
}

// pathBegins says whether an absolute path may begin after the text: not inside a name or a longer path, but after a URL's scheme.
func pathBegins(before string) bool {
	if before == "" || strings.HasSuffix(before, "://") {
		return true
	}
	last := before[len(before)-1]
	return !nameByte(last) && !strings.ContainsRune("/})~", rune(last))
}

// pathEnds says whether a path component is complete before the text.
func pathEnds(after string) bool { return after == "" || !nameByte(after[0]) }

func addressBegins(before string) bool {
	return before == "" || !nameByte(before[len(before)-1])
}

// addressEnds refuses a longer address and a prefix such as 0.0.0.0/0.
func addressEnds(after string) bool {
	if after == "" {
		return true
	}
	if after[0] == '/' {
		return len(after) == 1 || after[1] < '0' || after[1] > '9'
	}
	// A full stop may end a sentence, as in a comment.
	if after[0] == '.' {
		return len(after) == 1 || !nameByte(after[1])
	}
	return !nameByte(after[0])
}

func nameByte(b byte) bool {
	return b == '.' || b == '-' || b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}
