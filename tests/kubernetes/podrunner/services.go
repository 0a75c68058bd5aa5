package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

const (
	dialTimeout = 5 * time.Second
	// apiService is the API server's Service in namespace default.
	apiService = "kubernetes"
)

// services gives LoadBalancer Services addresses and answers at the addresses of all Services, and at
// the Nodes' for their node ports, by relaying connections to the endpoints in turn.
type services struct {
	runner *runner
	all    corelisters.ServiceLister
	slices discoverylisters.EndpointSliceLister
	stale  chan struct{}
	used   map[netip.Addr]string // LoadBalancer addresses, by the Service that has one

	relays  map[string]*relay // by address and port
	refused map[string]bool   // addresses and ports whose failure is logged
}

// relay is one address and port of a Service.
type relay struct {
	listener net.Listener
	mu       sync.Mutex
	targets  []string
	next     int
}

func newServices(ctx context.Context, r *runner, factory informers.SharedInformerFactory) *services {
	s := &services{
		runner: r, stale: make(chan struct{}, 1), used: map[netip.Addr]string{},
		relays: map[string]*relay{}, refused: map[string]bool{},
		all:    factory.Core().V1().Services().Lister(),
		slices: factory.Discovery().V1().EndpointSlices().Lister(),
	}
	poke := func() {
		select {
		case s.stale <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { poke() },
		UpdateFunc: func(_, _ any) { poke() },
		DeleteFunc: func(any) { poke() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		factory.Core().V1().Services().Informer(),
		factory.Discovery().V1().EndpointSlices().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			log.Fatalf("podrunner: watching Services: %v", err)
		}
	}
	return s
}

func (s *services) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.stale:
			s.reconcile(ctx)
		}
	}
}

func (s *services) reconcile(ctx context.Context) {
	all, err := s.all.List(labels.Everything())
	if err != nil {
		log.Printf("listing Services: %v", err)
		return
	}
	wanted, balanced := map[string][]string{}, map[string]bool{}
	for _, service := range all {
		name := service.Namespace + "/" + service.Name
		balanced[name] = service.Spec.Type == corev1.ServiceTypeLoadBalancer
		addresses := service.Spec.ClusterIPs
		if balanced[name] {
			addresses = append(append([]string{}, addresses...), s.balance(ctx, name, service)...)
		}
		s.want(wanted, service, addresses)
	}
	for address, name := range s.used {
		if !balanced[name] {
			delete(s.used, address)
		}
	}
	s.serve(wanted)
}

// balance gives a LoadBalancer Service its address, the one it asks for where that is free.
func (s *services) balance(ctx context.Context, name string, service *corev1.Service) []string {
	if given := service.Status.LoadBalancer.Ingress; len(given) > 0 && given[0].IP != "" {
		if address, err := netip.ParseAddr(given[0].IP); err == nil {
			s.used[address] = name
		}
		return []string{given[0].IP}
	}
	address, err := s.choose(name, service.Spec.LoadBalancerIP)
	if err != nil {
		log.Printf("service %s: %v", name, err)
		return nil
	}
	changed := service.DeepCopy()
	changed.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{
		IP: address.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP),
	}}
	_, err = s.runner.client.CoreV1().Services(service.Namespace).UpdateStatus(
		ctx, changed, metav1.UpdateOptions{})
	if err != nil {
		log.Printf("service %s: writing its address: %v", name, err)
		return nil
	}
	return []string{address.String()}
}

func (s *services) choose(name, asked string) (netip.Addr, error) {
	pool := s.runner.settings.loadBalancers
	if asked != "" {
		address, err := netip.ParseAddr(asked)
		if err != nil || !pool.Contains(address) {
			return netip.Addr{}, fmt.Errorf("address %q is not of %s", asked, pool)
		}
		if owner, taken := s.used[address]; taken && owner != name {
			return netip.Addr{}, fmt.Errorf("address %s is %s's", asked, owner)
		}
		s.used[address] = name
		return address, nil
	}
	for address := pool.Masked().Addr().Next(); pool.Contains(address); address = address.Next() {
		if owner, taken := s.used[address]; !taken || owner == name {
			s.used[address] = name
			return address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address of %s is free", pool)
}

// want adds where each TCP port of the Service leads to.
func (s *services) want(wanted map[string][]string, service *corev1.Service, addresses []string) {
	slices, err := s.slices.EndpointSlices(service.Namespace).List(
		labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name}))
	if err != nil {
		log.Printf("listing EndpointSlices of %s/%s: %v", service.Namespace, service.Name, err)
		return
	}
	for _, port := range service.Spec.Ports {
		if port.Protocol != corev1.ProtocolTCP {
			continue
		}
		targets := s.targets(service, slices, port.Name)
		for _, address := range addresses {
			if address != corev1.ClusterIPNone && address != "" {
				wanted[net.JoinHostPort(address, strconv.Itoa(int(port.Port)))] = targets
			}
		}
		if port.NodePort != 0 {
			at := netip.AddrPortFrom(s.runner.network.gateway, uint16(port.NodePort))
			wanted[at.String()] = targets
		}
	}
}

// targets are the ready endpoints of a port; without any, those that end but still serve. The API
// server's own Service has none: where it is served is known here.
func (s *services) targets(
	service *corev1.Service, slices []*discoveryv1.EndpointSlice, name string,
) []string {
	if service.Namespace == metav1.NamespaceDefault && service.Name == apiService {
		return []string{s.runner.apiServer}
	}
	var ready, serving []string
	for _, slice := range slices {
		for _, port := range slice.Ports {
			if ptr.Deref(port.Name, "") != name || port.Port == nil {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				at := net.JoinHostPort(endpoint.Addresses[0], strconv.Itoa(int(*port.Port)))
				if ptr.Deref(endpoint.Conditions.Ready, true) {
					ready = append(ready, at)
				} else if ptr.Deref(endpoint.Conditions.Serving, false) {
					serving = append(serving, at)
				}
			}
		}
	}
	if len(ready) > 0 {
		return ready
	}
	return serving
}

func (s *services) serve(wanted map[string][]string) {
	for at, found := range s.relays {
		if _, still := wanted[at]; !still {
			_ = found.listener.Close()
			delete(s.relays, at)
		}
	}
	for at, targets := range wanted {
		found, there := s.relays[at]
		if !there {
			listener, err := net.Listen("tcp", at)
			if err != nil {
				if !s.refused[at] {
					log.Printf("no Service is served at %s: %v", at, err)
				}
				s.refused[at] = true
				continue
			}
			found = &relay{listener: listener}
			s.relays[at] = found
			go found.accept()
		}
		found.mu.Lock()
		found.targets = targets
		found.mu.Unlock()
	}
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		go r.carry(client.(*net.TCPConn))
	}
}

func (r *relay) target() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.targets) == 0 {
		return ""
	}
	r.next++
	return r.targets[r.next%len(r.targets)]
}

// carry relays one connection; without an endpoint it is reset.
func (r *relay) carry(client *net.TCPConn) {
	defer client.Close()
	target := r.target()
	if target == "" {
		_ = client.SetLinger(0)
		return
	}
	connection, err := net.DialTimeout("tcp", target, dialTimeout)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	server := connection.(*net.TCPConn)
	defer server.Close()
	var both sync.WaitGroup
	pass := func(to, from *net.TCPConn) {
		if _, err := io.Copy(to, from); err != nil {
			_ = to.SetLinger(0)
		}
		_ = to.CloseWrite()
	}
	both.Go(func() { pass(server, client) })
	both.Go(func() { pass(client, server) })
	both.Wait()
}
