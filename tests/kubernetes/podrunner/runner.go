package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"
)

// runner binds Pods to its Nodes and runs those that are bound to them.
type runner struct {
	settings   settings
	client     kubernetes.Interface
	images     images
	network    *network
	apiServer  string
	configMaps corelisters.ConfigMapLister
	secrets    corelisters.SecretLister
	services   corelisters.ServiceLister
	slices     discoverylisters.EndpointSliceLister
	nodes      []*corev1.Node

	mu     sync.Mutex
	pods   map[types.UID]*pod
	bound  map[types.UID]string // the Node of each Pod
	group  sync.WaitGroup
	ending bool
}

func newRunner(s settings, client *kubernetes.Clientset, known images, network *network) *runner {
	r := &runner{
		settings: s, client: client, images: known, network: network,
		pods: map[types.UID]*pod{}, bound: map[types.UID]string{},
	}
	if server, err := url.Parse(client.RESTClient().Get().URL().String()); err == nil {
		r.apiServer = server.Host
	}
	return r
}

// run works until the context ends, then kills what runs.
func (r *runner) run(ctx context.Context) error {
	for _, name := range []string{"logs", "pods", "claims"} {
		if err := os.MkdirAll(filepath.Join(r.settings.state, name), 0o755); err != nil {
			return err
		}
	}
	port, err := serveLogs(r.network.gateway, r.settings.state)
	if err != nil {
		return err
	}
	if err := r.register(ctx, port); err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(r.client, 0)
	r.configMaps = factory.Core().V1().ConfigMaps().Lister()
	r.secrets = factory.Core().V1().Secrets().Lister()
	r.services = factory.Core().V1().Services().Lister()
	r.slices = factory.Discovery().V1().EndpointSlices().Lister()
	addresses := newServices(ctx, r, factory)
	pods := factory.Core().V1().Pods().Informer()
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go addresses.run(ctx)
	if r.settings.dns == dnsSelf {
		if err := r.serveNames(); err != nil {
			return err
		}
		r.settings.dns = r.network.gateway.String()
	}
	_, err = pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { r.see(ctx, object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { r.see(ctx, object.(*corev1.Pod)) },
		DeleteFunc: func(object any) { r.gone(object) },
	})
	if err != nil {
		return err
	}
	log.Printf("podrunner is ready")
	<-ctx.Done()
	r.endAll()
	return nil
}

// register makes the Nodes and says that they are ready, and at which port logs are asked for.
func (r *runner) register(ctx context.Context, logs int32) error {
	for _, wanted := range r.settings.nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name:   wanted.name,
			Labels: map[string]string{corev1.LabelHostname: wanted.name, corev1.LabelOSStable: "linux"},
		}}
		if wanted.zone != "" {
			node.Labels[corev1.LabelTopologyZone] = wanted.zone
		}
		made, err := r.client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			made, err = r.client.CoreV1().Nodes().Get(ctx, wanted.name, metav1.GetOptions{})
		}
		if err != nil {
			return fmt.Errorf("registering Node %s: %w", wanted.name, err)
		}
		made.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "PodrunnerReady",
			LastTransitionTime: now(), LastHeartbeatTime: now(),
		}}
		made.Status.Addresses = []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: r.network.gateway.String()},
		}
		made.Status.DaemonEndpoints.KubeletEndpoint.Port = logs
		if _, err := r.client.CoreV1().Nodes().UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("saying that Node %s is ready: %w", wanted.name, err)
		}
		if err := r.untaint(ctx, wanted.name); err != nil {
			return err
		}
		r.nodes = append(r.nodes, made)
	}
	return nil
}

// untaint removes what the API server puts on new Nodes until they are ready.
func (r *runner) untaint(ctx context.Context, name string) error {
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"taints": nil}})
	if err != nil {
		return err
	}
	_, err = r.client.CoreV1().Nodes().Patch(
		ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// see takes a Pod as it is now: binds it, starts it, tells it what has changed.
func (r *runner) see(ctx context.Context, object *corev1.Pod) {
	if object.Spec.NodeName == "" {
		r.bind(ctx, object)
		return
	}
	if !r.owns(object.Spec.NodeName) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bound[object.UID] = object.Spec.NodeName
	running, there := r.pods[object.UID]
	done := object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed
	switch {
	case there:
		running.update(object)
	case r.ending:
	case done && object.DeletionTimestamp == nil:
	default:
		r.start(ctx, object)
	}
}

func (r *runner) owns(name string) bool {
	for _, node := range r.nodes {
		if node.Name == name {
			return true
		}
	}
	return false
}

// bind chooses the Node with the fewest Pods among those that the Pod's selector allows.
func (r *runner) bind(ctx context.Context, object *corev1.Pod) {
	if object.DeletionTimestamp != nil || len(object.Spec.SchedulingGates) > 0 {
		return
	}
	r.mu.Lock()
	load := map[string]int{}
	for _, node := range r.bound {
		load[node]++
	}
	var chosen *corev1.Node
	for _, node := range r.nodes {
		fits := labels.SelectorFromSet(object.Spec.NodeSelector).Matches(labels.Set(node.Labels))
		if fits && (chosen == nil || load[node.Name] < load[chosen.Name]) {
			chosen = node
		}
	}
	r.mu.Unlock()
	if chosen == nil {
		log.Printf("pod %s/%s: no Node fits its selector", object.Namespace, object.Name)
		return
	}
	err := r.client.CoreV1().Pods(object.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: object.Name, UID: object.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: chosen.Name},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		log.Printf("pod %s/%s: binding it to %s: %v", object.Namespace, object.Name, chosen.Name, err)
		return
	}
	r.mu.Lock()
	r.bound[object.UID] = chosen.Name
	r.mu.Unlock()
}

// start runs a Pod that is not known yet; the lock is held.
func (r *runner) start(ctx context.Context, object *corev1.Pod) {
	p := newPod(r, object)
	r.pods[object.UID] = p
	p.update(object)
	done := make(chan struct{})
	r.group.Go(func() {
		p.run()
		close(done)
	})
	go func() {
		p.publish(ctx, done)
		<-done
		r.finish(ctx, p)
	}()
}

// finish waits for the deletion of a Pod that has ended, and confirms it as a kubelet does: the
// object goes away only now that nothing of it runs.
func (r *runner) finish(ctx context.Context, p *pod) {
	for p.current().DeletionTimestamp == nil {
		select {
		case <-p.stale:
		case <-ctx.Done():
			return
		}
		if p.life.Err() != nil {
			return
		}
	}
	err := r.client.CoreV1().Pods(p.namespace).Delete(ctx, p.name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To(int64(0)),
		Preconditions:      metav1.NewUIDPreconditions(string(p.current().UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		log.Printf("%s: confirming its deletion: %v", p, err)
	}
}

// gone ends a Pod whose object is away: it was deleted by force.
func (r *runner) gone(object any) {
	if lost, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = lost.Obj
	}
	deleted, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	r.mu.Lock()
	p := r.pods[deleted.UID]
	delete(r.pods, deleted.UID)
	delete(r.bound, deleted.UID)
	r.mu.Unlock()
	if p != nil {
		p.abandon()
	}
}

// endAll kills every Pod, without grace.
func (r *runner) endAll() {
	r.mu.Lock()
	r.ending = true
	for _, p := range r.pods {
		p.abandon()
	}
	r.mu.Unlock()
	r.group.Wait()
}
