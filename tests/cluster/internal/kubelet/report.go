package kubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// reportRetry is the time after which a status that the API did not take is sent again.
const reportRetry = 500 * time.Millisecond

// apiTimeout of one request; the API server may be away.
const apiTimeout = 5 * time.Second

// report sends the status whenever it has changed, and when everything has ended, deletes the pod for good.
func (p *pod) report() {
	everything := p.everything
	for ending := false; ; {
		var retry <-chan time.Time
		if ending && p.isGone() {
			return
		}
		err := p.patch()
		if err == nil && ending {
			err = p.finalize()
		}
		// A pod that the API has no more, or another one of this name: the watch says so too.
		lost := apierrors.IsNotFound(err) || apierrors.IsConflict(err)
		if ending && (err == nil || lost) {
			return
		}
		if err != nil && !lost {
			p.kubelet.log("pod %s/%s: %v", p.namespace, p.name, err)
			retry = time.After(reportRetry)
		}
		select {
		case <-p.changed:
		case <-retry:
		case <-everything:
			everything, ending = nil, true
		}
	}
}

func (p *pod) isGone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// observe gives the pod as the API had it last and its status as of now.
func (p *pod) observe() (*v1.Pod, v1.PodStatus) {
	address := p.address()
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := observed{ip: address, start: p.start, over: p.over, problem: p.problem}
	for i := range p.latest.Spec.Containers {
		seen.containers = append(seen.containers, *p.statuses[p.latest.Spec.Containers[i].Name])
	}
	for i := range p.latest.Spec.InitContainers {
		one := *p.statuses[p.latest.Spec.InitContainers[i].Name]
		// An init container is ready when it has done its work.
		if ended := one.State.Terminated; ended != nil && ended.ExitCode == 0 {
			one.Ready = true
		}
		seen.init = append(seen.init, one)
	}
	return p.latest, podStatus(p.latest, seen, now())
}

// patch sends what differs from the status in the API, if anything does.
func (p *pod) patch() error {
	pod, status := p.observe()
	before, err := json.Marshal(v1.Pod{Status: pod.Status})
	if err != nil {
		return err
	}
	after, err := json.Marshal(v1.Pod{Status: status})
	if err != nil {
		return err
	}
	if bytes.Equal(before, after) {
		return nil
	}
	// The UID makes it a precondition that the pod is still the same.
	after, err = json.Marshal(v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: p.uid}, Status: status})
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Pod{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
	defer cancel()
	updated, err := p.kubelet.client.CoreV1().Pods(p.namespace).Patch(ctx, p.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err == nil {
		p.update(updated)
	}
	return err
}

// now in whole seconds, as the API keeps times: finer ones would look like a change each time.
func now() metav1.Time { return metav1.Now().Rfc3339Copy() }

// finalize takes the pod out of the API: all its processes have ended.
func (p *pod) finalize() error {
	ctx, cancel := context.WithTimeout(context.Background(), apiTimeout)
	defer cancel()
	none := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &none, Preconditions: &metav1.Preconditions{UID: &p.uid}}
	return p.kubelet.client.CoreV1().Pods(p.namespace).Delete(ctx, p.name, options)
}
