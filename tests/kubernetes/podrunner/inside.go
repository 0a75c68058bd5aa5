package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	insideCommand = "inside"
	holdCommand   = "hold"
	// toldBy is the pipe on which `inside` says what went wrong; it closes when the command runs.
	toldBy = 3
)

// mounted is a folder or file of this machine at a path of a container's.
type mounted struct {
	From     string
	At       string
	ReadOnly bool
}

// start is what `inside` is told, as JSON in a file.
type start struct {
	Network    string // the Pod's namespace, as a file below /proc; empty: this machine's
	Scratch    string // an empty folder for the overlay
	Hostname   string
	Mounts     []mounted
	Files      map[string]string
	ReadOnly   bool
	User       *int64 // nil: whoever runs podrunner
	Group      *int64
	WorkingDir string
	Argv       []string
	Env        []string
}

// hold keeps a Pod's network namespace, with the kernel's parameters given as NAME=VALUE, until its
// input ends, with podrunner if not before.
func hold(parameters []string) {
	for _, parameter := range parameters {
		name, value, _ := strings.Cut(parameter, "=")
		path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	_, _ = fmt.Println("held")
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// inside becomes a container's command, in the namespaces (mount, PID, host name) that it was
// started in, on an overlay of this machine's files.
func inside(path string) {
	syscall.CloseOnExec(toldBy)
	if err := enter(path); err != nil {
		fmt.Fprint(os.NewFile(toldBy, "told"), err)
		os.Exit(127)
	}
}

func enter(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var told start
	if err := json.Unmarshal(content, &told); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(told.Hostname)); err != nil {
		return fmt.Errorf("naming the host: %w", err)
	}
	if err := joinNetwork(told.Network); err != nil {
		return err
	}
	made, err := makeRoot(told.Scratch)
	if err != nil {
		return err
	}
	if err := made.furnish(&told); err != nil {
		return err
	}
	if err := pivot(made.path); err != nil {
		return err
	}
	if told.WorkingDir != "" {
		if err := os.Chdir(told.WorkingDir); err != nil {
			return err
		}
	}
	os.Clearenv()
	for _, entry := range told.Env {
		name, value, _ := strings.Cut(entry, "=")
		os.Setenv(name, value)
	}
	program, err := exec.LookPath(told.Argv[0])
	if err != nil {
		return err
	}
	if err := become(told.User, told.Group); err != nil {
		return err
	}
	return fmt.Errorf("running %s: %w", program, unix.Exec(program, told.Argv, told.Env))
}

func joinNetwork(path string) error {
	if path == "" {
		return nil
	}
	namespace, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the Pod's network %s: %w", path, err)
	}
	if err := unix.Setns(namespace, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("joining the Pod's network: %w", err)
	}
	return nil
}

// root is what becomes a container's root: a tmpfs with an overlay over each of this machine's
// top folders, so that what the container writes goes with it. Folders in which something else is
// mounted are shared as they are (in a user namespace no overlay may cover them), but /etc.
type root struct {
	scratch  string
	path     string
	overlays []string
}

func makeRoot(scratch string) (*root, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making mounts private: %w", err)
	}
	points, err := mountPoints()
	if err != nil {
		return nil, err
	}
	there, err := os.ReadDir("/")
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("scratch", scratch, "tmpfs", 0, "mode=755"); err != nil {
		return nil, fmt.Errorf("mounting tmpfs on %s: %w", scratch, err)
	}
	made := &root{scratch: scratch, path: filepath.Join(scratch, "root")}
	if err := os.Mkdir(made.path, 0o755); err != nil {
		return nil, err
	}
	// Only a mount point can become the root.
	if err := bind(made.path, made.path); err != nil {
		return nil, err
	}
	for _, entry := range there {
		if err := made.add("/"+entry.Name(), entry.Type(), points); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// add puts one entry of this machine's root into the container's.
func (r *root) add(path string, kind os.FileMode, points []string) error {
	at := r.path + path
	switch {
	case kind&os.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(to, at)
	case !kind.IsDir():
		if err := touch(at); err != nil {
			return err
		}
		return bind(path, at)
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	if path == "/proc" {
		if err := unix.Mount("proc", at, "proc", 0, ""); err != nil {
			return fmt.Errorf("mounting /proc: %w", err)
		}
		return nil
	}
	for _, point := range points {
		if within(point, path) && path != "/etc" {
			return bind(path, at)
		}
	}
	return r.overlay(path, at)
}

func (r *root) overlay(path, at string) error {
	upper, work := r.scratch+"/upper"+path, r.scratch+"/work"+path
	from, err := os.Stat(path)
	if err != nil {
		return err
	}
	for _, folder := range []string{upper, work} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
	}
	// The folder itself is seen as the upper one is: /tmp is to stay everyone's.
	if err := os.Chmod(upper, from.Mode()); err != nil {
		return err
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path, upper, work)
	if err := unix.Mount("overlay", at, "overlay", 0, layers); err != nil {
		return fmt.Errorf("mounting an overlay over %s: %w", path, err)
	}
	r.overlays = append(r.overlays, at)
	return nil
}

// readOnly lets nothing be written but to volumes and what is shared.
func (r *root) readOnly() error {
	for _, at := range append([]string{r.path}, r.overlays...) {
		if err := remountReadOnly(at); err != nil {
			return err
		}
	}
	return nil
}

func remountReadOnly(at string) error {
	if err := unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("making %s read-only: %w", at, err)
	}
	return nil
}

// mountPoints are where something is mounted.
func mountPoints() ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var found []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		found = append(found, strings.Fields(lines.Text())[4])
	}
	return found, lines.Err()
}

func within(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func bind(from, at string) error {
	if err := unix.Mount(from, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", from, at, err)
	}
	return nil
}

// furnish puts volumes and files into the root.
func (r *root) furnish(told *start) error {
	for path, text := range told.Files {
		if err := os.WriteFile(r.path+path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, wanted := range told.Mounts {
		at, err := r.within(wanted.At)
		if err != nil {
			return err
		}
		if err := mountVolume(at, &wanted); err != nil {
			return err
		}
	}
	if !told.ReadOnly {
		return nil
	}
	return r.readOnly()
}

// within is where a path of the container's is for us: links on the way lead to paths of the
// container's as well (/var/run is one in most).
func (r *root) within(path string) (string, error) {
	at, rest := r.path, strings.Split(strings.Trim(filepath.Clean(path), "/"), "/")
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		to, err := os.Readlink(next)
		if err != nil {
			at, rest = next, rest[1:]
			continue
		}
		if links++; links > 40 {
			return "", fmt.Errorf("%s: too many links", path)
		}
		parts := strings.Split(strings.Trim(filepath.Clean(to), "/"), "/")
		if filepath.IsAbs(to) {
			at = r.path
		}
		rest = append(parts, rest[1:]...)
	}
	return at, nil
}

func mountVolume(at string, wanted *mounted) error {
	from, err := os.Stat(wanted.From)
	if err != nil {
		return err
	}
	if from.IsDir() {
		err = os.MkdirAll(at, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
		err = touch(at)
	}
	if err != nil {
		return err
	}
	if err := bind(wanted.From, at); err != nil || !wanted.ReadOnly {
		return err
	}
	return remountReadOnly(at)
}

func touch(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return file.Close()
}

// pivot makes root the root of the mount namespace, so that who joins it later sees it as well.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	return os.Chdir("/")
}

// become takes on the container's user, with no right of root's but to read: see main.go. In a
// namespace that knows one user only, nothing changes.
func become(user, group *int64) error {
	if user == nil || *user == 0 || !mapped(*user) {
		return nil
	}
	gid := *user
	if group != nil {
		gid = *group
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping capabilities: %w", err)
	}
	if err := unix.Setgroups(nil); err != nil {
		return fmt.Errorf("leaving groups: %w", err)
	}
	if err := unix.Setresgid(int(gid), int(gid), int(gid)); err != nil {
		return fmt.Errorf("becoming group %d: %w", gid, err)
	}
	if err := unix.Setresuid(int(*user), int(*user), int(*user)); err != nil {
		return fmt.Errorf("becoming user %d: %w", *user, err)
	}
	kept := uint32(1) << unix.CAP_DAC_READ_SEARCH
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: kept, Permitted: kept, Inheritable: kept}}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("giving capabilities up: %w", err)
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_DAC_READ_SEARCH, 0, 0)
}

// mapped is whether this user namespace has such a user.
func mapped(user int64) bool {
	content, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return false
	}
	var first, outside, count int64
	for _, line := range strings.Split(strings.TrimSpace(string(content)), "\n") {
		if _, err := fmt.Sscan(line, &first, &outside, &count); err == nil &&
			first <= user && user < first+count {
			return true
		}
	}
	return false
}
