package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// watch runs the probes of a running container; the startup probe comes before the others.
func (c *container) watch(ctx context.Context) {
	if hooks := c.spec.Lifecycle; hooks != nil && hooks.PostStart != nil {
		if err := c.hook(ctx, hooks.PostStart); err != nil {
			c.restart(fmt.Sprintf("postStart failed: %v", err))
			return
		}
	}
	if probe := c.spec.StartupProbe; probe != nil && !c.startup(ctx, probe) {
		return
	}
	if probe := c.spec.LivenessProbe; probe != nil {
		go c.repeat(ctx, probe, func(healthy bool, why error) bool {
			if !healthy {
				c.restart(fmt.Sprintf("the liveness probe failed: %v", why))
			}
			return healthy
		})
	}
	if probe := c.spec.ReadinessProbe; probe != nil {
		c.repeat(ctx, probe, func(healthy bool, _ error) bool {
			c.change(func() { c.ready = healthy && c.process != nil })
			return true
		})
	}
}

// startup waits until the startup probe succeeds; false: the container is ended instead.
func (c *container) startup(ctx context.Context, probe *corev1.Probe) bool {
	passed := false
	c.repeat(ctx, probe, func(healthy bool, why error) bool {
		passed = healthy
		if !healthy {
			c.restart(fmt.Sprintf("the startup probe failed: %v", why))
		}
		return false
	})
	if passed {
		c.change(func() { c.started, c.ready = true, c.spec.ReadinessProbe == nil })
	}
	return passed
}

// repeat probes until `told` says no. It is told once as many results in a row as the probe asks
// for are alike, and again when they change.
func (c *container) repeat(
	ctx context.Context, probe *corev1.Probe, told func(healthy bool, why error) bool,
) {
	if !wait(ctx, seconds(probe.InitialDelaySeconds, 0)) {
		return
	}
	successes, failures := int32(0), int32(0)
	for {
		limited, cancel := context.WithTimeout(ctx, seconds(probe.TimeoutSeconds, 1))
		err := c.act(limited, probe.Exec, probe.HTTPGet, probe.TCPSocket, probe.GRPC)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
		}
		asked := successes == max(probe.SuccessThreshold, 1) || failures == max(probe.FailureThreshold, 1)
		if asked && !told(err == nil, err) {
			return
		}
		if !wait(ctx, seconds(probe.PeriodSeconds, 10)) {
			return
		}
	}
}

func seconds(given, otherwise int32) time.Duration {
	if given == 0 {
		given = otherwise
	}
	return time.Duration(given) * time.Second
}

// wait is false when the context ended first.
func wait(ctx context.Context, length time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(length):
		return true
	}
}

func (c *container) hook(ctx context.Context, hook *corev1.LifecycleHandler) error {
	if hook.Sleep != nil {
		wait(ctx, time.Duration(hook.Sleep.Seconds)*time.Second)
		return nil
	}
	return c.act(ctx, hook.Exec, hook.HTTPGet, hook.TCPSocket, nil)
}

// act does the one that is given, as a probe or a hook.
func (c *container) act(
	ctx context.Context, command *corev1.ExecAction, get *corev1.HTTPGetAction,
	connect *corev1.TCPSocketAction, health *corev1.GRPCAction,
) error {
	switch {
	case command != nil:
		return c.exec(ctx, command.Command)
	case get != nil:
		return c.get(ctx, get)
	case connect != nil:
		address, err := c.address(connect.Host, connect.Port)
		if err != nil {
			return err
		}
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return connection.Close()
	case health != nil:
		return c.health(ctx, health)
	}
	return errors.New("podrunner knows no such probe or hook")
}

// exec runs a command where the container runs; all of it is killed with the context.
func (c *container) exec(ctx context.Context, argv []string) error {
	pid := c.pid()
	if pid == 0 {
		return errors.New("the container does not run")
	}
	from, err := c.pod.runner.images.find(c.spec.Image)
	if err != nil {
		return err
	}
	env, err := c.pod.environment(&c.spec, from)
	if err != nil {
		return err
	}
	flags := []string{"--target", strconv.Itoa(pid), "--mount", "--net", "--pid", "--uts", "--"}
	command := exec.CommandContext(ctx, "nsenter", append(flags, argv...)...)
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	command.WaitDelay = time.Second
	if err := command.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(output.Bytes()))
	}
	return nil
}

func (c *container) get(ctx context.Context, get *corev1.HTTPGetAction) error {
	address, err := c.address(get.Host, get.Port)
	if err != nil {
		return err
	}
	scheme := "http"
	if get.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+get.Path, nil)
	if err != nil {
		return err
	}
	for _, header := range get.HTTPHeaders {
		request.Header.Add(header.Name, header.Value)
		if http.CanonicalHeaderKey(header.Name) == "Host" {
			request.Host = header.Value
		}
	}
	answer, err := probing.RoundTrip(request)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode >= 400 {
		return fmt.Errorf("GET %s answers %d", request.URL, answer.StatusCode)
	}
	return nil
}

// probing trusts whatever certificate a Pod shows, as a kubelet does.
var probing = &http.Transport{
	DisableKeepAlives: true,
	TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
}

func (c *container) health(ctx context.Context, health *corev1.GRPCAction) error {
	address, err := c.address("", intstr.FromInt32(health.Port))
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	request := &healthv1.HealthCheckRequest{}
	if health.Service != nil {
		request.Service = *health.Service
	}
	answer, err := healthv1.NewHealthClient(connection).Check(ctx, request)
	if err != nil {
		return err
	}
	if answer.Status != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("the server says %s", answer.Status)
	}
	return nil
}

// address is where a probe or hook connects to; a port may be given by its name.
func (c *container) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = c.pod.ip.String()
	}
	if port.Type == intstr.Int {
		return net.JoinHostPort(host, strconv.Itoa(int(port.IntVal))), nil
	}
	for _, declared := range c.spec.Ports {
		if declared.Name == port.StrVal {
			return net.JoinHostPort(host, strconv.Itoa(int(declared.ContainerPort))), nil
		}
	}
	return "", fmt.Errorf("container %s has no port %q", c.spec.Name, port.StrVal)
}
