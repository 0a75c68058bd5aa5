package main

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// setUpAgain is the delay before a Pod's volumes and network are tried again.
	setUpAgain = 500 * time.Millisecond
	// defaultGrace is the API's own default.
	defaultGrace = 30 * time.Second
)

// pod is a Pod that runs here, from its binding until nothing of it is left.
//
//	set up -> init containers -> containers -> (all done | told to end) -> stopped
type pod struct {
	runner          *runner
	namespace, name string
	directory       string
	ip              netip.Addr
	holder          *holder
	volumes         map[string]*volume
	tokens          map[string]token

	mu          sync.Mutex
	object      *corev1.Pod
	init        []*container
	containers  []*container
	initialized bool
	failed      bool
	finished    bool
	trouble     string // why it is not set up yet

	life   context.Context // ends when it is to be killed
	kill   context.CancelFunc
	ending chan struct{} // closed once it is told to end
	once   sync.Once
	stale  chan struct{} // holds an element while the status is to be written
}

func newPod(r *runner, object *corev1.Pod) *pod {
	p := &pod{
		runner: r, namespace: object.Namespace, name: object.Name, object: object,
		directory: filepath.Join(r.settings.state, "pods", string(object.UID)),
		tokens:    map[string]token{},
		ending:    make(chan struct{}), stale: make(chan struct{}, 1),
	}
	p.life, p.kill = context.WithCancel(context.Background())
	for _, spec := range object.Spec.InitContainers {
		p.init = append(p.init, newContainer(p, spec))
	}
	for _, spec := range object.Spec.Containers {
		p.containers = append(p.containers, newContainer(p, spec))
	}
	return p
}

func (p *pod) String() string { return "pod " + p.namespace + "/" + p.name }

func (p *pod) current() *corev1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.object
}

// update takes the object as it is now.
func (p *pod) update(object *corev1.Pod) {
	p.mu.Lock()
	p.object = object
	p.mu.Unlock()
	if object.DeletionTimestamp != nil {
		p.end()
	}
	p.changed()
}

// end tells the Pod to stop.
func (p *pod) end() { p.once.Do(func() { close(p.ending) }) }

// abandon kills what runs, since the object is away or podrunner ends.
func (p *pod) abandon() {
	p.kill()
	p.end()
	p.changed()
}

func (p *pod) changed() {
	select {
	case p.stale <- struct{}{}:
	default:
	}
}

func (p *pod) hostname() string {
	if name := p.current().Spec.Hostname; name != "" {
		return name
	}
	return p.name
}

func (p *pod) grace() time.Duration {
	object := p.current()
	for _, given := range []*int64{
		object.DeletionGracePeriodSeconds, object.Spec.TerminationGracePeriodSeconds,
	} {
		if given != nil {
			return time.Duration(*given) * time.Second
		}
	}
	return defaultGrace
}

// run is all of the Pod's life here. It returns when its processes have ended.
func (p *pod) run() {
	ctx, cancel := context.WithCancel(p.life)
	defer cancel()
	go func() {
		<-p.ending
		cancel()
	}()
	var running sync.WaitGroup
	stopped := make(chan struct{})
	go func() {
		<-p.ending
		p.stop()
		close(stopped)
	}()
	p.changed()
	if p.setUp(ctx) {
		go p.keepVolumes(ctx)
		p.runContainers(ctx, &running)
	}
	p.end()
	running.Wait()
	<-stopped
	p.tearDown()
}

// setUp makes network and volumes, again until it works or the Pod is told to end.
func (p *pod) setUp(ctx context.Context) bool {
	for {
		err := p.connect()
		if err == nil {
			err = p.makeVolumes()
		}
		if err == nil {
			p.mu.Lock()
			p.trouble = ""
			p.mu.Unlock()
			return true
		}
		p.mu.Lock()
		fresh := p.trouble != err.Error()
		p.trouble = err.Error()
		p.mu.Unlock()
		if fresh {
			log.Printf("%s: setting up: %v; trying again", p, err)
			p.changed()
		}
		if !wait(ctx, setUpAgain) {
			return false
		}
	}
}

func (p *pod) connect() error {
	network := p.runner.network
	if p.current().Spec.HostNetwork {
		p.mu.Lock()
		p.ip = network.gateway
		p.mu.Unlock()
		return nil
	}
	if p.holder != nil {
		return nil
	}
	address, err := network.reserve()
	if err != nil {
		return err
	}
	made, err := network.connect(address, p.parameters())
	if err != nil {
		network.release(address)
		return err
	}
	p.mu.Lock()
	p.holder, p.ip = made, address
	p.mu.Unlock()
	return nil
}

// parameters are the kernel's that the Pod wants in its namespace.
func (p *pod) parameters() []string {
	var found []string
	if security := p.current().Spec.SecurityContext; security != nil {
		for _, parameter := range security.Sysctls {
			found = append(found, parameter.Name+"="+parameter.Value)
		}
	}
	return found
}

// user is whom a container runs as; nil: nobody says.
func (p *pod) user(container *corev1.Container) (user, group *int64) {
	if security := p.current().Spec.SecurityContext; security != nil {
		user, group = security.RunAsUser, security.RunAsGroup
	}
	if security := container.SecurityContext; security != nil {
		if security.RunAsUser != nil {
			user = security.RunAsUser
		}
		if security.RunAsGroup != nil {
			group = security.RunAsGroup
		}
	}
	return user, group
}

// runContainers returns when the containers are done for good.
func (p *pod) runContainers(ctx context.Context, running *sync.WaitGroup) {
	policy := p.current().Spec.RestartPolicy
	for _, c := range p.init {
		if c.sidecar {
			running.Go(func() { c.run(ctx, policy) })
			for !*c.status().Started && wait(ctx, setUpAgain/10) {
			}
			continue
		}
		// Always is for containers that serve; of an init container it means until it succeeds.
		until := policy
		if until == corev1.RestartPolicyAlways {
			until = corev1.RestartPolicyOnFailure
		}
		if code := c.run(ctx, until); code != 0 {
			p.finish(true)
			return
		}
	}
	if ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	p.initialized = true
	p.mu.Unlock()
	p.changed()
	codes := make(chan int, len(p.containers))
	for _, c := range p.containers {
		running.Go(func() { codes <- c.run(ctx, policy) })
	}
	failed := false
	for range p.containers {
		failed = <-codes != 0 || failed
	}
	p.finish(failed)
}

func (p *pod) finish(failed bool) {
	p.mu.Lock()
	p.finished, p.failed = true, failed
	p.mu.Unlock()
	p.changed()
}

// stop ends all containers; sidecars outlive the others.
func (p *pod) stop() {
	deadline := time.Now().Add(p.grace())
	all := func(list []*container) {
		var group sync.WaitGroup
		for _, c := range list {
			group.Go(func() { c.stop(deadline) })
		}
		group.Wait()
	}
	all(p.containers)
	all(p.init)
}

func (p *pod) tearDown() {
	if p.holder != nil {
		p.holder.end()
		p.runner.network.release(p.ip)
	}
	if err := os.RemoveAll(p.directory); err != nil {
		log.Printf("%s: removing its folder: %v", p, err)
	}
}

// rootFiles are the files that a kubelet would put into each container.
func (p *pod) rootFiles() map[string]string {
	found := map[string]string{
		"/etc/hosts": fmt.Sprintf("127.0.0.1\tlocalhost\n%s\t%s\n", p.ip, p.hostname()),
	}
	if server := p.runner.settings.dns; server != "" {
		found["/etc/resolv.conf"] = fmt.Sprintf(
			"nameserver %s\nsearch %s.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
			server, p.namespace)
	}
	return found
}
