package main

import (
	"context"
	"encoding/json"
	"log"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// publish writes the status whenever it has changed, until `done`; then the last one.
func (p *pod) publish(ctx context.Context, done <-chan struct{}) {
	for {
		select {
		case <-p.stale:
			if !p.write(ctx) && wait(ctx, setUpAgain) {
				p.changed()
			}
		case <-done:
			for !p.write(ctx) && wait(ctx, setUpAgain) {
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// write is false when it is to be tried again.
func (p *pod) write(ctx context.Context) bool {
	object := p.current()
	status := p.status(object)
	if apiequality.Semantic.DeepEqual(object.Status, status) {
		return true
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": object.UID}, "status": status,
	})
	if err != nil {
		log.Fatalf("%s: encoding its status: %v", p, err)
	}
	written, err := p.runner.client.CoreV1().Pods(p.namespace).Patch(
		ctx, p.name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	switch {
	case err == nil:
		p.update(written)
	case apierrors.IsNotFound(err), apierrors.IsConflict(err), ctx.Err() != nil:
	default:
		log.Printf("%s: writing its status: %v; trying again", p, err)
		return false
	}
	return true
}

func (p *pod) status(object *corev1.Pod) corev1.PodStatus {
	p.mu.Lock()
	initialized, finished, failed := p.initialized, p.finished, p.failed
	trouble, address := p.trouble, p.ip
	p.mu.Unlock()
	found := *object.Status.DeepCopy()
	found.ObservedGeneration = object.Generation
	found.HostIP = p.runner.network.gateway.String()
	found.HostIPs = []corev1.HostIP{{IP: found.HostIP}}
	if address.IsValid() {
		found.PodIP = address.String()
		found.PodIPs = []corev1.PodIP{{IP: found.PodIP}}
	}
	if found.StartTime == nil {
		found.StartTime = ptr.To(now())
	}
	found.InitContainerStatuses = statuses(p.init, trouble)
	found.ContainerStatuses = statuses(p.containers, trouble)
	found.Phase = phase(&found, initialized, finished, failed)
	ready := !finished
	for _, status := range found.ContainerStatuses {
		ready = ready && status.Ready
	}
	set(&found, corev1.PodScheduled, true, "", "")
	set(&found, corev1.PodReadyToStartContainers, address.IsValid(), "", "")
	set(&found, corev1.PodInitialized, initialized, "ContainersNotInitialized", "")
	set(&found, corev1.ContainersReady, ready, "ContainersNotReady", trouble)
	reason := "ContainersNotReady"
	for _, gate := range object.Spec.ReadinessGates {
		if condition(&found, gate.ConditionType).Status != corev1.ConditionTrue {
			ready, reason = false, "ReadinessGatesNotReady"
		}
	}
	set(&found, corev1.PodReady, ready, reason, trouble)
	return found
}

func statuses(containers []*container, trouble string) []corev1.ContainerStatus {
	var found []corev1.ContainerStatus
	for _, c := range containers {
		status := c.status()
		if trouble != "" && status.State.Waiting != nil {
			status.State = waiting("ContainerCreating", trouble)
		}
		found = append(found, status)
	}
	return found
}

func phase(status *corev1.PodStatus, initialized, finished, failed bool) corev1.PodPhase {
	switch {
	case finished && failed:
		return corev1.PodFailed
	case finished:
		return corev1.PodSucceeded
	}
	started := initialized
	for _, found := range status.ContainerStatuses {
		began := found.State.Waiting == nil || found.LastTerminationState.Terminated != nil
		started = started && began
	}
	if started {
		return corev1.PodRunning
	}
	return corev1.PodPending
}

func condition(status *corev1.PodStatus, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range status.Conditions {
		if status.Conditions[i].Type == kind {
			return &status.Conditions[i]
		}
	}
	return &corev1.PodCondition{}
}

// set writes one condition; those of others stay. Reason and message are for when it is false.
func set(status *corev1.PodStatus, kind corev1.PodConditionType, is bool, reason, message string) {
	value := corev1.ConditionFalse
	if is {
		value, reason, message = corev1.ConditionTrue, "", ""
	}
	found := condition(status, kind)
	if found.Type == "" {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind})
		found = &status.Conditions[len(status.Conditions)-1]
	}
	if found.Status != value {
		found.LastTransitionTime = now()
	}
	found.Status, found.Reason, found.Message = value, reason, message
}

// now is as exact as the API keeps it, so that what was written equals what is read.
func now() metav1.Time { return metav1.Now().Rfc3339Copy() }
