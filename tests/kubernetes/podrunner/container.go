package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// restartDelayGrowth bounds the delay between starts, as a multiple of the first one; a container
// that ran for as long as the longest delay starts from the first one again.
const restartDelayGrowth = 30

// container runs one container of a Pod, again and again as the Pod's policy says.
type container struct {
	pod  *pod
	spec corev1.Container
	// sidecar: an init container that stays, restarted however it ends.
	sidecar bool

	mu       sync.Mutex
	state    corev1.ContainerState
	last     corev1.ContainerState
	restarts int32
	started  bool
	ready    bool
	process  *process
	stopping bool
	// asked is why a running process was told to end: a failed probe or a hook.
	asked string
}

// process is one start of a container.
type process struct {
	command *exec.Cmd
	output  *output
	began   metav1.Time
	ended   chan struct{}
}

func newContainer(p *pod, spec corev1.Container) *container {
	sidecar := spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
	c := &container{pod: p, spec: spec, sidecar: sidecar}
	c.state = waiting("PodInitializing", "")
	return c
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message},
	}
}

// run starts the container until it is done for good or told to stop; it returns its exit code.
func (c *container) run(ctx context.Context, policy corev1.RestartPolicy) int {
	if c.sidecar {
		policy = corev1.RestartPolicyAlways
	}
	first := c.pod.runner.settings.restartDelay
	delay := first
	for {
		began := time.Now()
		code, err := c.once(ctx)
		if err != nil {
			log.Printf("%s: container %s does not start: %v", c.pod, c.spec.Name, err)
		}
		done := err == nil && (policy == corev1.RestartPolicyNever ||
			policy == corev1.RestartPolicyOnFailure && code == 0)
		if done || ctx.Err() != nil {
			return code
		}
		if time.Since(began) > restartDelayGrowth*first {
			delay = first
		}
		c.waitToRestart(err, delay)
		if !wait(ctx, delay) {
			return code
		}
		delay = min(2*delay, restartDelayGrowth*first)
	}
}

func (c *container) waitToRestart(err error, delay time.Duration) {
	c.change(func() {
		if err != nil {
			c.state = waiting("CreateContainerError", err.Error())
			return
		}
		c.last = c.state
		c.restarts++
		c.state = waiting("CrashLoopBackOff", fmt.Sprintf("starts again in %s", delay))
	})
}

// once runs the container one time and returns its exit code; an error: it did not start.
func (c *container) once(ctx context.Context) (int, error) {
	running, err := c.begin(ctx)
	if err != nil {
		return 0, err
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go c.watch(watching)
	waited := running.command.Wait()
	running.output.close()
	close(running.ended)
	var exit *exec.ExitError
	if waited != nil && !errors.As(waited, &exit) {
		log.Printf("%s: waiting for container %s: %v", c.pod, c.spec.Name, waited)
	}
	code := running.command.ProcessState.ExitCode()
	reason := "Completed"
	if status, ok := running.command.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	if code != 0 {
		reason = "Error"
	}
	c.change(func() {
		c.process, c.started, c.ready = nil, false, false
		c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: int32(code), Reason: reason, Message: c.asked,
			StartedAt: running.began, FinishedAt: now(),
		}}
		c.asked = ""
	})
	return code, nil
}

func (c *container) begin(ctx context.Context) (*process, error) {
	told, err := c.told()
	if err != nil {
		return nil, err
	}
	command, err := command(told)
	if err != nil {
		return nil, err
	}
	output, err := openOutput(logPath(
		c.pod.runner.settings.state, c.pod.namespace, c.pod.name, c.spec.Name))
	if err != nil {
		return nil, err
	}
	command.Stdout, command.Stderr = output, output
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping || ctx.Err() != nil {
		output.close()
		return nil, errors.New("the Pod ends")
	}
	if err := spawn(command); err != nil {
		output.close()
		return nil, err
	}
	c.process = &process{command, output, now(), make(chan struct{})}
	c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: c.process.began}}
	c.started = c.spec.StartupProbe == nil
	c.ready = c.started && c.spec.ReadinessProbe == nil
	c.pod.changed()
	return c.process, nil
}

// told is all that `inside` needs to become the container's command.
func (c *container) told() (*start, error) {
	from, err := c.pod.runner.images.find(c.spec.Image)
	if err != nil {
		return nil, err
	}
	env, err := c.pod.environment(&c.spec, from)
	if err != nil {
		return nil, err
	}
	made := &start{
		Hostname: c.pod.hostname(), Files: c.pod.rootFiles(), Argv: from.argv(&c.spec, env),
		WorkingDir: from.WorkingDir,
		Scratch:    filepath.Join(c.pod.directory, "containers", c.spec.Name),
	}
	if len(made.Argv) == 0 {
		return nil, fmt.Errorf("image %q has no command and the container gives none", c.spec.Image)
	}
	if c.spec.WorkingDir != "" {
		made.WorkingDir = c.spec.WorkingDir
	}
	if c.pod.holder != nil {
		made.Network = c.pod.holder.path()
	}
	made.User, made.Group = c.pod.user(&c.spec)
	if security := c.spec.SecurityContext; security != nil {
		made.ReadOnly = ptr.Deref(security.ReadOnlyRootFilesystem, false)
	}
	for name, value := range env {
		made.Env = append(made.Env, name+"="+value)
	}
	for _, wanted := range c.spec.VolumeMounts {
		path := filepath.Join(c.pod.volumes[wanted.Name].path, expanded(wanted.SubPathExpr, env))
		made.Mounts = append(made.Mounts, mounted{
			From: filepath.Join(path, wanted.SubPath), At: wanted.MountPath, ReadOnly: wanted.ReadOnly,
		})
	}
	return made, os.MkdirAll(made.Scratch, 0o755)
}

func command(told *start) (*exec.Cmd, error) {
	content, err := json.Marshal(told)
	if err != nil {
		return nil, err
	}
	path := told.Scratch + ".json"
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return nil, err
	}
	command := exec.Command("/proc/self/exe", insideCommand, path)
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	return command, nil
}

// stop lets the preStop hook and then the process itself end until the deadline, then kills it.
func (c *container) stop(deadline time.Time) {
	c.mu.Lock()
	c.stopping = true
	running := c.process
	c.mu.Unlock()
	if running != nil {
		c.end(running, deadline)
	}
}

func (c *container) end(running *process, deadline time.Time) {
	ctx, cancel := context.WithDeadline(c.pod.life, deadline)
	defer cancel()
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PreStop != nil {
		if err := c.hook(ctx, hooks.PreStop); err != nil {
			log.Printf("%s: preStop of container %s: %v", c.pod, c.spec.Name, err)
		}
	}
	_ = running.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-running.ended:
	case <-ctx.Done():
		_ = running.command.Process.Kill()
		<-running.ended
	}
}

// restart ends the running process, which is started again as the Pod's policy says.
func (c *container) restart(why string) {
	c.mu.Lock()
	running := c.process
	c.asked = why
	c.mu.Unlock()
	log.Printf("%s: container %s is ended: %s", c.pod, c.spec.Name, why)
	if running != nil {
		c.end(running, time.Now().Add(c.pod.grace()))
	}
}

// change alters what the Pod's status says of the container.
func (c *container) change(alter func()) {
	c.mu.Lock()
	alter()
	c.mu.Unlock()
	c.pod.changed()
}

func (c *container) status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: "local://" + c.spec.Image,
		State: c.state, LastTerminationState: c.last, RestartCount: c.restarts,
		Ready: c.ready, Started: ptr.To(c.started),
	}
	if c.process != nil {
		found.ContainerID = fmt.Sprintf("process://%d", c.process.command.Process.Pid)
	}
	return found
}

func (c *container) pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return 0
	}
	return c.process.command.Process.Pid
}

// starts is the one thread that starts containers: Linux ends a process with the parent's
// *thread* when it was asked to do so with the parent.
var starts = sync.OnceValue(func() chan func() {
	asked := make(chan func())
	go func() {
		runtime.LockOSThread()
		for next := range asked {
			next()
		}
	}()
	return asked
})

// spawn starts a command made of `inside` and waits until it has become the container's own.
func spawn(command *exec.Cmd) error {
	told, telling, err := os.Pipe()
	if err != nil {
		return err
	}
	defer told.Close()
	command.ExtraFiles = []*os.File{telling}
	answer := make(chan error)
	starts() <- func() { answer <- command.Start() }
	err = <-answer
	_ = telling.Close()
	if err != nil {
		return err
	}
	if text, _ := io.ReadAll(told); len(text) > 0 {
		_ = command.Wait()
		return errors.New(string(text))
	}
	return nil
}
