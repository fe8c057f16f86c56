package kubelet

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func container1(name string, ready bool, state v1.ContainerState) v1.ContainerStatus {
	return v1.ContainerStatus{Name: name, Ready: ready, Started: &ready, State: state}
}

var (
	running = v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	waiting = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{}}
)

func ended(code int32) v1.ContainerState {
	return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: code}}
}

func TestPhase(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	pod := &v1.Pod{Spec: v1.PodSpec{InitContainers: []v1.Container{{Name: "init"}, {Name: "side", RestartPolicy: &always}}}}
	done := []v1.ContainerStatus{container1("init", false, ended(0)), container1("side", true, running)}
	crashed := container1("a", false, waiting)
	crashed.LastTerminationState = ended(1)
	for name, given := range map[string]struct {
		seen  observed
		want  v1.PodPhase
		ready bool
	}{
		"nothing runs yet":    {observed{init: done, containers: []v1.ContainerStatus{container1("a", false, waiting)}}, v1.PodPending, false},
		"initializing":        {observed{init: []v1.ContainerStatus{container1("init", false, running)}}, v1.PodPending, false},
		"a sidecar starts":    {observed{init: []v1.ContainerStatus{container1("init", false, ended(0)), container1("side", false, running)}}, v1.PodPending, false},
		"ready":               {observed{init: done, containers: []v1.ContainerStatus{container1("a", true, running)}}, v1.PodRunning, true},
		"one of two is ready": {observed{init: done, containers: []v1.ContainerStatus{container1("a", true, running), container1("b", false, running)}}, v1.PodRunning, false},
		"crashed":             {observed{init: done, containers: []v1.ContainerStatus{crashed}}, v1.PodRunning, false},
		"succeeded":           {observed{init: done, containers: []v1.ContainerStatus{container1("a", false, ended(0))}, over: true}, v1.PodSucceeded, false},
		"failed":              {observed{init: done, containers: []v1.ContainerStatus{container1("a", false, ended(2))}, over: true}, v1.PodFailed, false},
	} {
		status := podStatus(pod, given.seen, metav1.Now())
		_, isReady := condition(status, v1.PodReady)
		if status.Phase != given.want || isReady != given.ready {
			t.Errorf("%s: %s, ready %v", name, status.Phase, isReady)
		}
	}
}

func condition(status v1.PodStatus, kind v1.PodConditionType) (v1.PodCondition, bool) {
	for _, condition := range status.Conditions {
		if condition.Type == kind {
			return condition, condition.Status == v1.ConditionTrue
		}
	}
	return v1.PodCondition{}, false
}

func TestConditionsKeepTheirTransitionTime(t *testing.T) {
	early, late := metav1.NewTime(time.Unix(10, 0)), metav1.NewTime(time.Unix(20, 0))
	pod := &v1.Pod{}
	pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionTrue, LastTransitionTime: early}}
	pod.Status = podStatus(pod, observed{containers: []v1.ContainerStatus{container1("a", false, running)}}, early)
	pod.Status = podStatus(pod, observed{containers: []v1.ContainerStatus{container1("a", true, running)}}, late)
	if initialized, _ := condition(pod.Status, v1.PodInitialized); initialized.LastTransitionTime != early {
		t.Error("a condition that did not change has a new time")
	}
	ready, yes := condition(pod.Status, v1.PodReady)
	if !yes || ready.LastTransitionTime != late || ready.Reason != "" {
		t.Errorf("ready is %v", ready)
	}
	if _, scheduled := condition(pod.Status, v1.PodScheduled); !scheduled {
		t.Error("the scheduler's condition is lost")
	}
}

func TestReadinessGates(t *testing.T) {
	pod := &v1.Pod{Spec: v1.PodSpec{ReadinessGates: []v1.PodReadinessGate{{ConditionType: "example.com/warm"}}}}
	seen := observed{containers: []v1.ContainerStatus{container1("a", true, running)}}
	status := podStatus(pod, seen, metav1.Now())
	if ready, yes := condition(status, v1.PodReady); yes || ready.Reason != "ReadinessGatesNotReady" {
		t.Errorf("with a shut gate: %v", ready)
	}
	pod.Status.Conditions = []v1.PodCondition{{Type: "example.com/warm", Status: v1.ConditionTrue}}
	if _, yes := condition(podStatus(pod, seen, metav1.Now()), v1.PodReady); !yes {
		t.Error("not ready with an open gate")
	}
}
