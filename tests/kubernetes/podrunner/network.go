package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// network is the Pods' bridge in this namespace and the addresses on it. Pods of one bridge reach
// each other and what is local to this namespace; nothing is forwarded, so they do not reach the
// Pods of another podrunner beside them.
type network struct {
	bridge  string
	prefix  netip.Prefix
	gateway netip.Addr
	mu      sync.Mutex
	used    map[netip.Addr]bool
	last    netip.Addr
	links   int
}

func newNetwork(bridge string, prefix netip.Prefix) (*network, error) {
	gateway := prefix.Masked().Addr().Next()
	made := &network{
		bridge: bridge, prefix: prefix, gateway: gateway, last: gateway,
		used: map[netip.Addr]bool{gateway: true},
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0o644); err != nil {
		return nil, fmt.Errorf("keeping this namespace from forwarding: %w", err)
	}
	return made, ip(nil,
		"link add "+bridge+" type bridge",
		fmt.Sprintf("addr add %s/%d dev %s", gateway, prefix.Bits(), bridge),
		"link set "+bridge+" up",
	)
}

func (n *network) remove() { _ = ip(nil, "link del "+n.bridge) }

// reserve gives an address that no Pod has; those given back are given again last.
func (n *network) reserve() (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for next := n.last.Next(); next != n.last; next = next.Next() {
		if !n.prefix.Contains(next) {
			next = n.gateway
		}
		if !n.used[next] {
			n.used[next], n.last = true, next
			return next, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is free", n.prefix)
}

func (n *network) release(address netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, address)
}

// holder is the process that keeps a Pod's network namespace.
type holder struct {
	command *exec.Cmd
	input   io.WriteCloser
}

// connect makes a namespace with `address` on the bridge and the kernel's `parameters`, NAME=VALUE.
func (n *network) connect(address netip.Addr, parameters []string) (*holder, error) {
	command := exec.Command("/proc/self/exe", append([]string{holdCommand}, parameters...)...)
	var trouble bytes.Buffer
	command.Stderr = &trouble
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	made := &holder{command, input}
	if held, _ := bufio.NewReader(output).ReadString('\n'); held == "" {
		made.end()
		return nil, fmt.Errorf("setting the kernel's parameters: %s", trouble.Bytes())
	}
	n.mu.Lock()
	n.links++
	link := fmt.Sprintf("%s-%d", n.bridge, n.links)
	n.mu.Unlock()
	err = ip(nil,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %d", link, command.Process.Pid),
		fmt.Sprintf("link set %s master %s up", link, n.bridge),
	)
	if err == nil {
		err = ip(made,
			"link set lo up",
			fmt.Sprintf("addr add %s/%d dev eth0", address, n.prefix.Bits()),
			"link set eth0 up",
			fmt.Sprintf("route add default via %s", n.gateway),
		)
	}
	if err != nil {
		made.end()
		return nil, err
	}
	return made, nil
}

func (h *holder) path() string { return fmt.Sprintf("/proc/%d/ns/net", h.command.Process.Pid) }

func (h *holder) end() {
	_ = h.input.Close()
	_ = h.command.Wait()
}

// ip runs commands of the program `ip`, in the namespace of `of` or in this one.
func ip(of *holder, commands ...string) error {
	argv := []string{"ip", "-batch", "-"}
	if of != nil {
		argv = append([]string{"nsenter", "--net=" + of.path()}, argv...)
	}
	command := exec.Command(argv[0], argv[1:]...)
	command.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(commands, "; "), err, output)
	}
	return nil
}
