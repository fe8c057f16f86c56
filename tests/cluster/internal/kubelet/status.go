package kubelet

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apipod "k8s.io/kubernetes/pkg/api/v1/pod"
	podutil "k8s.io/kubernetes/pkg/util/pod"
)

// hostIP of every node.
const hostIP = "127.0.0.1"

// observed is what is known of a pod's containers.
type observed struct {
	ip         string
	start      metav1.Time
	containers []v1.ContainerStatus
	init       []v1.ContainerStatus
	// over says that no container runs and none will be started again.
	over bool
	// problem that keeps the containers from being made, such as an absent ConfigMap.
	problem string
}

// podStatus is the status to report: the one in the API with what the kubelet answers for. Conditions keep their transition time
// where they do not change.
func podStatus(pod *v1.Pod, seen observed, now metav1.Time) v1.PodStatus {
	initialized := initDone(pod, seen.init)
	status := *pod.Status.DeepCopy()
	status.Phase = phase(seen, initialized)
	status.HostIP, status.HostIPs = hostIP, []v1.HostIP{{IP: hostIP}}
	status.StartTime = &seen.start
	status.ContainerStatuses, status.InitContainerStatuses = seen.containers, seen.init
	status.Message = seen.problem
	if seen.ip != "" {
		status.PodIP = seen.ip
		status.PodIPs = []v1.PodIP{{IP: seen.ip}}
	}
	ready := containersReady(seen, status.Phase)
	gates := shutGate(pod)
	set := func(kind v1.PodConditionType, truth bool, reason, message string) {
		condition := v1.PodCondition{Type: kind, Status: v1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: now}
		if truth {
			condition.Status, condition.Reason, condition.Message = v1.ConditionTrue, "", ""
		}
		if _, previous := apipod.GetPodCondition(&pod.Status, kind); previous != nil && previous.Status == condition.Status {
			condition.LastTransitionTime = previous.LastTransitionTime
		}
		status.Conditions = podutil.ReplaceOrAppendPodCondition(status.Conditions, &condition)
	}
	set(v1.PodReadyToStartContainers, seen.ip != "" && seen.problem == "", "NotReady", seen.problem)
	set(v1.PodInitialized, initialized, "ContainersNotInitialized", "containers with incomplete status: "+incomplete(pod, seen.init))
	reason, message := "ContainersNotReady", "containers with unready status: "+unready(seen.containers)
	if status.Phase == v1.PodSucceeded {
		reason, message = "PodCompleted", ""
	}
	set(v1.ContainersReady, ready, reason, message)
	if ready && gates != "" {
		reason, message = "ReadinessGatesNotReady", gates
	}
	set(v1.PodReady, ready && gates == "", reason, message)
	return status
}

func phase(seen observed, initialized bool) v1.PodPhase {
	if seen.over {
		for _, container := range append(append([]v1.ContainerStatus{}, seen.init...), seen.containers...) {
			if state := container.State.Terminated; state != nil && state.ExitCode != 0 {
				return v1.PodFailed
			}
		}
		return v1.PodSucceeded
	}
	if !initialized {
		return v1.PodPending
	}
	for _, container := range seen.containers {
		if container.State.Running != nil || container.State.Terminated != nil || container.LastTerminationState.Terminated != nil {
			return v1.PodRunning
		}
	}
	return v1.PodPending
}

// sidecar says whether an init container goes on beside the others.
func sidecar(container *v1.Container) bool {
	return container.RestartPolicy != nil && *container.RestartPolicy == v1.ContainerRestartPolicyAlways
}

func initDone(pod *v1.Pod, statuses []v1.ContainerStatus) bool {
	return incomplete(pod, statuses) == "[]"
}

// incomplete names the init containers that are still awaited.
func incomplete(pod *v1.Pod, statuses []v1.ContainerStatus) string {
	var names []string
	for i := range pod.Spec.InitContainers {
		container := &pod.Spec.InitContainers[i]
		done := false
		for _, status := range statuses {
			if status.Name != container.Name {
				continue
			}
			if sidecar(container) {
				done = status.Started != nil && *status.Started
			} else {
				done = status.State.Terminated != nil && status.State.Terminated.ExitCode == 0
			}
		}
		if !done {
			names = append(names, container.Name)
		}
	}
	return "[" + strings.Join(names, " ") + "]"
}

func containersReady(seen observed, phase v1.PodPhase) bool {
	if phase != v1.PodRunning {
		return false
	}
	for _, container := range seen.containers {
		if !container.Ready {
			return false
		}
	}
	return true
}

func unready(statuses []v1.ContainerStatus) string {
	var names []string
	for _, status := range statuses {
		if !status.Ready {
			names = append(names, status.Name)
		}
	}
	return "[" + strings.Join(names, " ") + "]"
}

// shutGate names the first readiness gate that is shut, or nothing.
func shutGate(pod *v1.Pod) string {
	for _, gate := range pod.Spec.ReadinessGates {
		open := false
		for _, condition := range pod.Status.Conditions {
			open = open || condition.Type == gate.ConditionType && condition.Status == v1.ConditionTrue
		}
		if !open {
			return fmt.Sprintf("the status of pod readiness gate %q is not True", gate.ConditionType)
		}
	}
	return ""
}
