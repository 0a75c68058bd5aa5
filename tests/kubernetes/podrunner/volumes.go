package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// volumesRenewed is how often Secrets and ConfigMaps in Pods are compared with the objects; a
	// kubelet takes up to a minute.
	volumesRenewed = time.Second
	// tokenLife is how long a service account's token is valid; it is renewed at half of it.
	tokenLife = time.Hour
)

// files are a volume's content, by path in it.
type files map[string][]byte

// volume is one of a Pod's. `render` gives its content where that comes from the API server.
type volume struct {
	path   string
	render func() (files, error)
	shown  files
}

// makeVolumes makes the Pod's volumes; what they are made of must be there already.
func (p *pod) makeVolumes() error {
	p.volumes = map[string]*volume{}
	for _, declared := range p.current().Spec.Volumes {
		made, err := p.makeVolume(&declared)
		if err != nil {
			return fmt.Errorf("volume %s: %w", declared.Name, err)
		}
		p.volumes[declared.Name] = made
	}
	return nil
}

func (p *pod) makeVolume(declared *corev1.Volume) (*volume, error) {
	made := &volume{path: filepath.Join(p.directory, "volumes", declared.Name)}
	switch source := declared.VolumeSource; {
	case source.HostPath != nil:
		made.path = source.HostPath.Path
	case source.PersistentVolumeClaim != nil:
		claim := p.namespace + "_" + source.PersistentVolumeClaim.ClaimName
		made.path = filepath.Join(p.runner.settings.state, "claims", claim)
	case source.EmptyDir != nil:
	case source.ConfigMap != nil:
		from := source.ConfigMap
		made.render = func() (files, error) {
			return picked(from.Items)(p.configMap(from.Name, from.Optional))
		}
	case source.Secret != nil:
		from := source.Secret
		made.render = func() (files, error) {
			return picked(from.Items)(p.secret(from.SecretName, from.Optional))
		}
	case source.DownwardAPI != nil:
		made.render = func() (files, error) { return p.downward(source.DownwardAPI.Items) }
	case source.Projected != nil:
		made.render = func() (files, error) { return p.projected(source.Projected.Sources) }
	default:
		return nil, fmt.Errorf("podrunner has no volumes of this kind")
	}
	if err := os.MkdirAll(made.path, 0o755); err != nil {
		return nil, err
	}
	if declared.EmptyDir != nil || declared.PersistentVolumeClaim != nil {
		// For whatever user the containers run as.
		if err := os.Chmod(made.path, 0o777); err != nil {
			return nil, err
		}
	}
	return made, made.renew()
}

// keepVolumes renews content that comes from the API server until the Pod ends.
func (p *pod) keepVolumes(ctx context.Context) {
	for wait(ctx, volumesRenewed) {
		for name, made := range p.volumes {
			if err := made.renew(); err != nil {
				log.Printf("%s: renewing volume %s: %v; the old content stays", p, name, err)
			}
		}
	}
}

// renew writes the content when it has changed: a new folder behind the link `..data`, so that
// readers see all of the old or all of the new.
func (v *volume) renew() error {
	if v.render == nil {
		return nil
	}
	content, err := v.render()
	if err != nil || (v.shown != nil && same(v.shown, content)) {
		return err
	}
	fresh, err := os.MkdirTemp(v.path, "..")
	if err != nil {
		return err
	}
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	for name, data := range content {
		path := filepath.Join(fresh, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return v.show(content, filepath.Base(fresh))
}

func (v *volume) show(content files, fresh string) error {
	data := filepath.Join(v.path, "..data")
	before, _ := os.Readlink(data)
	if err := os.Symlink(fresh, data+"_new"); err != nil {
		return err
	}
	if err := os.Rename(data+"_new", data); err != nil {
		return err
	}
	for name := range tops(v.shown) {
		if !tops(content)[name] {
			_ = os.Remove(filepath.Join(v.path, name))
		}
	}
	for name := range tops(content) {
		link := filepath.Join(v.path, name)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join("..data", name), link); err != nil {
			return err
		}
	}
	v.shown = content
	if before == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(v.path, before))
}

// tops are the names that a volume's own folder shows.
func tops(content files) map[string]bool {
	found := map[string]bool{}
	for path := range content {
		top, _, _ := strings.Cut(path, "/")
		found[top] = true
	}
	return found
}

func same(before, now files) bool {
	if len(before) != len(now) {
		return false
	}
	for path, data := range now {
		if old, there := before[path]; !there || !bytes.Equal(old, data) {
			return false
		}
	}
	return true
}

// picked leaves the keys asked for at the paths asked for; without any, all by their own names.
func picked(items []corev1.KeyToPath) func(map[string][]byte, error) (files, error) {
	return func(data map[string][]byte, err error) (files, error) {
		if err != nil || data == nil || len(items) == 0 {
			return data, err
		}
		found := files{}
		for _, item := range items {
			value, there := data[item.Key]
			if !there {
				return nil, fmt.Errorf("there is no key %q", item.Key)
			}
			found[item.Path] = value
		}
		return found, nil
	}
}

func (p *pod) downward(items []corev1.DownwardAPIVolumeFile) (files, error) {
	found := files{}
	for _, item := range items {
		if item.FieldRef == nil {
			return nil, fmt.Errorf("podrunner knows fieldRef only")
		}
		value, err := p.field(item.FieldRef.FieldPath)
		if err != nil {
			return nil, err
		}
		found[item.Path] = []byte(value)
	}
	return found, nil
}

func (p *pod) projected(sources []corev1.VolumeProjection) (files, error) {
	all := files{}
	for _, source := range sources {
		var part files
		var err error
		switch {
		case source.ConfigMap != nil:
			part, err = picked(source.ConfigMap.Items)(
				p.configMap(source.ConfigMap.Name, source.ConfigMap.Optional))
		case source.Secret != nil:
			part, err = picked(source.Secret.Items)(
				p.secret(source.Secret.Name, source.Secret.Optional))
		case source.DownwardAPI != nil:
			part, err = p.downward(source.DownwardAPI.Items)
		case source.ServiceAccountToken != nil:
			part, err = p.token(source.ServiceAccountToken)
		default:
			err = fmt.Errorf("podrunner knows no projection of this kind")
		}
		if err != nil {
			return nil, err
		}
		for path, data := range part {
			all[path] = data
		}
	}
	return all, nil
}

// token asks for a token of the Pod's service account, again when half of its life is over.
func (p *pod) token(from *corev1.ServiceAccountTokenProjection) (files, error) {
	if kept, there := p.tokens[from.Path]; there && time.Since(kept.asked) < tokenLife/2 {
		return files{from.Path: kept.text}, nil
	}
	object := p.current()
	seconds := int64(tokenLife.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			Kind: "Pod", APIVersion: "v1", Name: object.Name, UID: object.UID,
		},
	}}
	if from.Audience != "" {
		request.Spec.Audiences = []string{from.Audience}
	}
	account := object.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	answer, err := p.runner.client.CoreV1().ServiceAccounts(p.namespace).CreateToken(
		context.Background(), account, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("asking for a token of service account %s: %w", account, err)
	}
	p.tokens[from.Path] = token{[]byte(answer.Status.Token), time.Now()}
	return files{from.Path: []byte(answer.Status.Token)}, nil
}

type token struct {
	text  []byte
	asked time.Time
}

// quoted is how the downward API writes labels and annotations.
func quoted(pairs map[string]string) string {
	lines := make([]string, 0, len(pairs))
	for name, value := range pairs {
		lines = append(lines, fmt.Sprintf("%s=%q", name, value))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
