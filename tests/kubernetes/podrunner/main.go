// Command podrunner runs the Pods of a test cluster as processes of this machine.
//
// It registers Nodes, binds Pods to them, gives each Pod a network namespace on a bridge of the
// cluster and each container a root of its own (an overlay of this machine's), and reports their
// statuses, as a kubelet would. A table says which local command stands for which image. It also
// stands in for kube-proxy (TCP) and for a cloud's load balancers: the addresses of Services are
// answered in the namespace it runs in, which is to be a test's own (tests/testkit/namespace.py).
//
// Containers that name a user run as it where podrunner is root, without capabilities but one: what
// stands for their images' files may be this machine's user's alone, so they may read everything.
//
// It leaves out: IPv6, UDP Services, network policies, resource limits, groups of volumes,
// persistent data beyond its own life, exec and port-forward through the API server, following a
// log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// settings are what the command line says.
type settings struct {
	kubeconfig    string
	images        string
	state         string
	bridge        string
	nodes         nodeFlags
	podNetwork    netip.Prefix
	loadBalancers netip.Prefix
	dns           string
	restartDelay  time.Duration
}

// nodeFlags are the Nodes asked for, as NAME or NAME=ZONE.
type nodeFlags []nodeFlag

type nodeFlag struct{ name, zone string }

func (n *nodeFlags) String() string { return fmt.Sprint(*n) }

func (n *nodeFlags) Set(text string) error {
	name, zone, _ := strings.Cut(text, "=")
	if name == "" {
		return errors.New("a Node wants a name")
	}
	*n = append(*n, nodeFlag{name, zone})
	return nil
}

func init() {
	// Namespaces belong to threads: what `inside` and `hold` do to theirs is to be the process'.
	runtime.LockOSThread()
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case insideCommand:
			inside(os.Args[2])
			return
		case holdCommand:
			hold(os.Args[2:])
			return
		}
	}
	if err := run(parsed()); err != nil {
		log.Fatalf("podrunner: %v", err)
	}
}

func parsed() settings {
	var s settings
	flag.StringVar(&s.kubeconfig, "kubeconfig", "", "leads to the API server, with all rights")
	flag.StringVar(&s.images, "images", "", "file (YAML or JSON) that says which command an image is")
	flag.StringVar(&s.state, "state", "", "folder for volumes and logs")
	flag.StringVar(&s.bridge, "bridge", "pods0", "name of the bridge; at most 9 characters")
	flag.Var(&s.nodes, "node", "NAME or NAME=ZONE of a Node; can be given several times")
	flag.TextVar(&s.podNetwork, "pod-network", netip.MustParsePrefix("10.78.0.0/24"),
		"addresses of Pods, the first one the bridge's")
	flag.TextVar(&s.loadBalancers, "load-balancers", netip.MustParsePrefix("10.77.200.0/24"),
		"addresses for LoadBalancer Services; must be local to this namespace")
	flag.StringVar(&s.dns, "dns", "",
		"name server in Pods' resolv.conf; `self`: this program, for Services; empty: the machine's file")
	flag.DurationVar(&s.restartDelay, "restart-delay", time.Second,
		"first delay before a container starts again; doubles up to 30 times it")
	flag.Parse()
	if s.kubeconfig == "" || s.images == "" || s.state == "" {
		log.Fatal("podrunner: --kubeconfig, --images and --state are needed")
	}
	if len(s.nodes) == 0 {
		s.nodes = nodeFlags{{"node-1", ""}}
	}
	return s
}

func run(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	known, err := readImages(s.images)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		return fmt.Errorf("reading kubeconfig %s: %w", s.kubeconfig, err)
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connecting by %s: %w", s.kubeconfig, err)
	}
	network, err := newNetwork(s.bridge, s.podNetwork)
	if err != nil {
		return err
	}
	defer network.remove()
	return newRunner(s, client, known, network).run(ctx)
}
