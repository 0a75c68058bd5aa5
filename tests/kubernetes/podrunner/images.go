package main

import (
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// image is the local command that stands for a container image. As in an image, a container's
// `command` replaces Entrypoint and Command, its `args` replace Command.
type image struct {
	Entrypoint []string          `json:"entrypoint"`
	Command    []string          `json:"command"`
	Env        map[string]string `json:"env"`
	WorkingDir string            `json:"workingDir"`
}

// images go by a prefix of the image's name; the longest one that fits counts.
type images map[string]image

func readImages(path string) (images, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading images: %w", err)
	}
	var found images
	if err := yaml.UnmarshalStrict(content, &found); err != nil {
		return nil, fmt.Errorf("reading images of %s: %w", path, err)
	}
	return found, nil
}

func (all images) find(name string) (image, error) {
	longest, found := "", false
	for prefix := range all {
		if strings.HasPrefix(name, prefix) && (!found || len(prefix) > len(longest)) {
			longest, found = prefix, true
		}
	}
	if !found {
		return image{}, fmt.Errorf("no local command stands for image %q: add it to --images", name)
	}
	return all[longest], nil
}

// argv is what runs, with `$(NAME)` of the container's own arguments expanded.
func (i image) argv(container *corev1.Container, env map[string]string) []string {
	first, rest := i.Entrypoint, i.Command
	if len(container.Command) > 0 {
		first, rest = container.Command, nil
	}
	if len(container.Args) > 0 {
		rest = container.Args
	}
	argv := make([]string, 0, len(first)+len(rest))
	for _, word := range append(append([]string{}, first...), rest...) {
		argv = append(argv, expanded(word, env))
	}
	return argv
}

// expanded replaces `$(NAME)` where NAME is known; `$$(` stands for `$(`.
func expanded(text string, env map[string]string) string {
	var out strings.Builder
	for {
		at := strings.IndexByte(text, '$')
		if at < 0 || at+1 == len(text) {
			return out.String() + text
		}
		out.WriteString(text[:at])
		text = text[at:]
		end := strings.IndexByte(text, ')')
		value, known := "", false
		if text[1] == '(' && end > 0 {
			value, known = env[text[2:end]]
		}
		switch {
		case text[1] == '$':
			out.WriteByte('$')
			text = text[2:]
		case known:
			out.WriteString(value)
			text = text[end+1:]
		default:
			out.WriteByte('$')
			text = text[1:]
		}
	}
}
