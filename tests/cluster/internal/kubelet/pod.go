package kubelet

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// volumeRetry is the time between attempts to make volumes whose sources are absent.
const volumeRetry = 200 * time.Millisecond

// pod runs one pod from its binding to its end.
type pod struct {
	kubelet         *Kubelet
	namespace, name string
	uid             types.UID
	directory       string
	volumes         *volumes

	// stop is done when the pod is to end, force when its processes are to be killed.
	stop, force         context.Context
	stopNow, forceNow   context.CancelFunc
	changed, everything chan struct{}

	mu       sync.Mutex
	latest   *v1.Pod
	ip       netip.Addr
	start    metav1.Time
	statuses map[string]*v1.ContainerStatus
	over     bool
	gone     bool
	problem  string
}

func newPod(kubelet *Kubelet, spec *v1.Pod) *pod {
	p := &pod{
		kubelet: kubelet, namespace: spec.Namespace, name: spec.Name, uid: spec.UID, latest: spec,
		directory: filepath.Join(kubelet.directory.Pods(), podDirectory(spec)),
		changed:   make(chan struct{}, 1), everything: make(chan struct{}),
		start: now(), statuses: map[string]*v1.ContainerStatus{},
	}
	p.volumes = newVolumes(filepath.Join(p.directory, "volumes"), kubelet.objects, clientTokens{kubelet})
	p.stop, p.stopNow = context.WithCancel(context.Background())
	p.force, p.forceNow = context.WithCancel(context.Background())
	if spec.Status.StartTime != nil {
		p.start = *spec.Status.StartTime
	}
	for _, container := range append(append([]v1.Container{}, spec.Spec.InitContainers...), spec.Spec.Containers...) {
		p.statuses[container.Name] = &v1.ContainerStatus{
			Name: container.Name, Image: container.Image, ImageID: container.Image,
			State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "ContainerCreating"}},
		}
	}
	p.adopt(spec)
	return p
}

func podDirectory(spec *v1.Pod) string {
	return spec.Namespace + "_" + spec.Name + "_" + string(spec.UID)
}

// adopt takes over what an earlier kubelet reported. Its processes have ended with it: they count as killed.
func (p *pod) adopt(spec *v1.Pod) {
	for _, previous := range append(append([]v1.ContainerStatus{}, spec.Status.InitContainerStatuses...), spec.Status.ContainerStatuses...) {
		status, ok := p.statuses[previous.Name]
		if !ok {
			continue
		}
		status.RestartCount, status.LastTerminationState = previous.RestartCount, previous.LastTerminationState
		switch {
		case previous.State.Terminated != nil:
			status.State = previous.State
		case previous.State.Running != nil:
			killed := &v1.ContainerStateTerminated{
				ExitCode: 137, Reason: "Error", Message: "the kubelet was started again",
				StartedAt: previous.State.Running.StartedAt, FinishedAt: now(), ContainerID: previous.ContainerID,
			}
			status.State = v1.ContainerState{Terminated: killed}
			status.LastTerminationState = v1.ContainerState{Terminated: killed}
		}
	}
}

// run returns when the pod is gone from the API.
func (p *pod) run() {
	if p.current().DeletionTimestamp != nil {
		p.end()
	}
	reporting := make(chan struct{})
	go func() {
		p.report()
		close(reporting)
	}()
	if spec := p.current(); spec.Status.Phase != v1.PodSucceeded && spec.Status.Phase != v1.PodFailed {
		p.live()
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
		p.notify()
	}
	<-p.stop.Done()
	close(p.everything)
	<-reporting
	p.kubelet.remove(p)
	p.mu.Lock()
	if p.ip.IsValid() {
		p.kubelet.addresses.release(p.ip)
	}
	p.mu.Unlock()
	if err := os.RemoveAll(p.directory); err != nil {
		p.kubelet.log("%v", err)
	}
}

// live starts the containers and returns when all have ended for good.
func (p *pod) live() {
	if p.stop.Err() != nil || !p.prepare() {
		return
	}
	refreshing, done := context.WithCancel(p.stop)
	defer done()
	go p.refresh(refreshing)
	spec := p.current()
	// Sidecars outlive the containers that they serve.
	sidecars, stopSidecars := context.WithCancel(context.Background())
	var beside, main sync.WaitGroup
	if p.initialize(spec, sidecars, &beside) {
		for i := range spec.Spec.Containers {
			if one := p.container(spec.Spec.Containers[i], spec.Spec.RestartPolicy); one != nil {
				main.Go(func() { one.run(p.stop) })
			}
		}
	}
	main.Wait()
	stopSidecars()
	beside.Wait()
}

// prepare gives the pod an address and volumes, trying until it is to end.
func (p *pod) prepare() bool {
	for {
		err := p.provide()
		p.mu.Lock()
		p.problem = ""
		if err != nil {
			p.problem = err.Error()
		}
		p.mu.Unlock()
		p.notify()
		if err == nil {
			return true
		}
		select {
		case <-p.stop.Done():
			return false
		case <-time.After(volumeRetry):
		}
	}
}

func (p *pod) provide() error {
	spec := p.current()
	p.mu.Lock()
	if !p.ip.IsValid() {
		ip, err := p.kubelet.addresses.take(spec.Status.PodIP)
		if err != nil {
			p.mu.Unlock()
			return err
		}
		p.ip = ip
	}
	p.mu.Unlock()
	return p.volumes.sync(p.stop, spec, p.address(), time.Now())
}

// refresh brings changed ConfigMaps and Secrets and new tokens into the volumes.
func (p *pod) refresh(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.kubelet.syncPeriod):
		}
		if err := p.volumes.sync(ctx, p.current(), p.address(), time.Now()); err != nil && ctx.Err() == nil {
			p.kubelet.log("pod %s/%s: %v", p.namespace, p.name, err)
		}
	}
}

// initialize runs the init containers one after the other; it is false where one failed or the pod is to end.
func (p *pod) initialize(spec *v1.Pod, sidecars context.Context, beside *sync.WaitGroup) bool {
	for i := range spec.Spec.InitContainers {
		one := spec.Spec.InitContainers[i]
		if sidecar(&one) {
			running := p.container(one, v1.RestartPolicyAlways)
			beside.Go(func() { running.run(sidecars) })
			if !p.awaitStarted(one.Name) {
				return false
			}
			continue
		}
		policy := spec.Spec.RestartPolicy
		if policy == v1.RestartPolicyAlways {
			policy = v1.RestartPolicyOnFailure
		}
		if running := p.container(one, policy); running != nil {
			running.run(p.stop)
		}
		if status := p.status(one.Name); p.stop.Err() != nil || status.State.Terminated == nil || status.State.Terminated.ExitCode != 0 {
			return false
		}
	}
	return p.stop.Err() == nil
}

func (p *pod) awaitStarted(name string) bool {
	for {
		if status := p.status(name); status.Started != nil && *status.Started {
			return true
		}
		select {
		case <-p.stop.Done():
			return false
		case <-time.After(volumeRetry / 4):
		}
	}
}

// container is nothing where an earlier kubelet has seen the container end for good.
func (p *pod) container(spec v1.Container, policy v1.RestartPolicy) *container {
	again := true
	p.updateStatus(spec.Name, func(status *v1.ContainerStatus) {
		if ended := status.State.Terminated; ended != nil {
			again = policyRestarts(policy, int(ended.ExitCode))
			if again {
				status.RestartCount++
			}
		}
	})
	if !again {
		return nil
	}
	return &container{pod: p, spec: spec, policy: policy}
}

// update takes the pod as the API has it now. The watch may be behind the answers to our own patches.
func (p *pod) update(spec *v1.Pod) {
	p.mu.Lock()
	order, err := resourceversion.CompareResourceVersion(spec.ResourceVersion, p.latest.ResourceVersion)
	if err == nil && order <= 0 {
		p.mu.Unlock()
		return
	}
	shortened := p.latest.DeletionTimestamp != nil && *p.latest.DeletionGracePeriodSeconds != *spec.DeletionGracePeriodSeconds
	p.latest = spec
	p.mu.Unlock()
	if spec.DeletionTimestamp != nil && (p.stop.Err() == nil || shortened) {
		p.end()
	}
	p.notify()
}

// end stops the pod: its processes have the grace to end by themselves.
func (p *pod) end() {
	time.AfterFunc(p.grace(), p.forceNow)
	p.stopNow()
}

// removed is called when the API has the pod no more: nothing of it may remain.
func (p *pod) removed() {
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	p.forceNow()
	p.stopNow()
	p.notify()
}

// grace from SIGTERM to SIGKILL.
func (p *pod) grace() time.Duration {
	spec := p.current()
	for _, given := range []*int64{spec.DeletionGracePeriodSeconds, spec.Spec.TerminationGracePeriodSeconds} {
		if given != nil {
			return time.Duration(*given) * time.Second
		}
	}
	return 30 * time.Second
}

func (p *pod) current() *v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest
}

func (p *pod) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ip.IsValid() {
		return ""
	}
	return p.ip.String()
}

func (p *pod) status(name string) v1.ContainerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p.statuses[name]
}

func (p *pod) updateStatus(name string, change func(*v1.ContainerStatus)) {
	p.mu.Lock()
	change(p.statuses[name])
	p.mu.Unlock()
	p.notify()
}

// notify says that the status may have changed.
func (p *pod) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}
