package kubelet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"

	"headroom.dev/tests/cluster/internal/spawn"
)

// Times between restarts: doubled from the first to the last, and from the beginning again after a long enough run.
const (
	firstBackoff = time.Second
	lastBackoff  = 30 * time.Second
	backoffReset = time.Minute
)

// container runs one container of a pod, again and again as the restart policy says.
type container struct {
	pod    *pod
	spec   v1.Container
	policy v1.RestartPolicy
}

// run returns when the container has ended for good, or was stopped.
func (c *container) run(stop context.Context) {
	backoff := firstBackoff
	for stop.Err() == nil {
		begun := time.Now()
		exit, err := c.once(stop)
		if err != nil {
			c.waiting("CreateContainerConfigError", err.Error())
		} else {
			c.terminated(exit)
			if stop.Err() != nil || !policyRestarts(c.policy, int(exit.ExitCode)) {
				return
			}
		}
		if time.Since(begun) > backoffReset {
			backoff = firstBackoff
		}
		if err == nil {
			c.waiting("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s", backoff, c.spec.Name))
		}
		select {
		case <-stop.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, lastBackoff)
		if err == nil {
			c.update(func(status *v1.ContainerStatus) { status.RestartCount++ })
		}
	}
}

// once runs the process to its end. An error says why it could not be started at all.
func (c *container) once(stop context.Context) (v1.ContainerStateTerminated, error) {
	command, target, err := c.command()
	if err != nil {
		return v1.ContainerStateTerminated{}, err
	}
	defer command.Stdout.(*os.File).Close()
	if err := spawn.Start(command); err != nil {
		return v1.ContainerStateTerminated{}, err
	}
	started := now()
	pid := command.Process.Pid
	id := fmt.Sprintf("process://%d-%d", pid, time.Now().UnixNano())
	ended := make(chan struct{})
	go func() {
		_ = command.Wait()
		spawn.KillGroup(pid)
		close(ended)
	}()
	c.update(func(status *v1.ContainerStatus) {
		status.ContainerID = id
		status.State = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: started}}
	})
	reason := c.attend(stop, target, ended, pid)
	code := exitCode(command.ProcessState)
	if reason == "" && code == 0 {
		reason = "Completed"
	} else if reason == "" {
		reason = "Error"
	}
	return v1.ContainerStateTerminated{
		ExitCode: int32(code), Reason: reason, StartedAt: started, FinishedAt: now(), ContainerID: id,
	}, nil
}

// attend probes the process until it has ended, and ends it when it is to stop or a probe demands it; then the reason is that probe.
func (c *container) attend(stop context.Context, target target, ended <-chan struct{}, pid int) (reason string) {
	plan := newProbes(&c.spec, time.Now())
	type result struct {
		kind probeKind
		err  error
	}
	results := make(chan result, 1)
	probing, cancel := context.WithCancel(context.Background())
	defer cancel()
	inFlight := false
	stopping := stop.Done()
	for {
		c.probed(plan)
		var timer <-chan time.Time
		kind, due, ok := plan.next()
		if ok && !inFlight {
			timer = time.After(time.Until(due))
		}
		select {
		case <-ended:
			return reason
		case <-timer:
			inFlight = true
			go func() { results <- result{kind, target.probe(probing, plan.of(kind))} }()
		case got := <-results:
			inFlight = false
			plan.observe(got.kind, got.err == nil, time.Now())
			if got.err != nil {
				c.pod.kubelet.log("pod %s/%s container %s: %s probe: %v", c.pod.namespace, c.pod.name, c.spec.Name, got.kind, got.err)
			}
			if broken, yes := plan.broken(); yes && reason == "" && stopping != nil {
				reason = broken.String() + "ProbeFailed"
				plan.stop()
				go c.terminate(c.probeGrace(plan.of(broken)), target, ended, pid)
			}
		case <-stopping:
			stopping = nil
			plan.stop()
			if reason == "" {
				go c.terminate(c.pod.force, target, ended, pid)
			}
		}
	}
}

// probeGrace is the time that a process gets after a failed probe.
func (c *container) probeGrace(probe *v1.Probe) context.Context {
	grace := c.pod.grace()
	if probe.TerminationGracePeriodSeconds != nil {
		grace = time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(c.pod.force, grace)
	// Its timer ends with it at the latest.
	context.AfterFunc(ctx, cancel)
	return ctx
}

// terminate runs the preStop hook, sends SIGTERM, and kills when the force context is done.
func (c *container) terminate(force context.Context, target target, ended <-chan struct{}, pid int) {
	if c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil {
		hook, cancel := context.WithCancel(force)
		go func() {
			select {
			case <-ended:
			case <-hook.Done():
			}
			cancel()
		}()
		if err := target.hook(hook, c.spec.Lifecycle.PreStop); err != nil {
			c.pod.kubelet.log("pod %s/%s container %s: preStop: %v", c.pod.namespace, c.pod.name, c.spec.Name, err)
		}
		cancel()
	}
	select {
	case <-ended:
		return
	default:
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	select {
	case <-ended:
	case <-force.Done():
		spawn.KillGroup(pid)
	}
}

// hook runs a lifecycle handler.
func (t target) hook(ctx context.Context, handler *v1.LifecycleHandler) error {
	switch {
	case handler.Sleep != nil:
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(handler.Sleep.Seconds) * time.Second):
		}
		return nil
	case handler.Exec != nil:
		return t.exec(ctx, handler.Exec)
	case handler.HTTPGet != nil:
		return t.get(ctx, handler.HTTPGet)
	}
	return fmt.Errorf("only sleep, exec and httpGet can be done here")
}

// command with everything of the pod spec applied, its output going to the container's log.
func (c *container) command() (*exec.Cmd, target, error) {
	pod, ip := c.pod.current(), c.pod.address()
	directory := filepath.Join(c.pod.directory, "containers", c.spec.Name)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return nil, target{}, err
	}
	base := c.pod.kubelet.baseEnvironment(pod, directory)
	variables, err := environment(pod, &c.spec, ip, base, c.pod.kubelet.objects)
	if err != nil {
		return nil, target{}, err
	}
	view := newView(containerMounts(pod, &c.spec, c.pod.volumes, variables), ip)
	argv, err := c.pod.kubelet.images.argv(c.spec.Image,
		view.rewriteAll(expand(c.spec.Command, variables)), view.rewriteAll(expand(c.spec.Args, variables)))
	if err != nil {
		return nil, target{}, err
	}
	path, err := lookPath(argv[0], variables["PATH"])
	if err != nil {
		return nil, target{}, err
	}
	env, err := c.env(pod, variables, base, view, directory)
	if err != nil {
		return nil, target{}, err
	}
	log, err := os.OpenFile(c.pod.kubelet.logPath(pod.Namespace, pod.Name, c.spec.Name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, target{}, err
	}
	command := &exec.Cmd{Path: path, Args: argv, Env: env, Stdout: log, Stderr: log, Dir: directory}
	if c.spec.WorkingDir != "" {
		command.Dir = view.rewrite(c.spec.WorkingDir)
	}
	return command, target{container: &c.spec, ip: ip, view: view, env: env}, nil
}

// env is what the process gets: values of the pod spec rewritten, those of this machine left alone.
func (c *container) env(pod *v1.Pod, variables, base map[string]string, view view, directory string) ([]string, error) {
	result := map[string]string{}
	for name, value := range variables {
		if base[name] != value {
			value = view.rewrite(value)
		}
		result[name] = value
	}
	if _, given := result["KUBECONFIG"]; !given {
		path, err := kubeconfig(view, directory+".kubeconfig", c.pod.kubelet.server, pod.Namespace)
		if err != nil {
			return nil, err
		}
		if path != "" {
			result["KUBECONFIG"] = path
		}
	}
	return list(result), nil
}

// lookPath finds a program as execvp does, in the container's own PATH.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, directory := range filepath.SplitList(path) {
		candidate := filepath.Join(directory, name)
		if info, err := os.Stat(candidate); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("no program %q in PATH %s", name, path)
}

// exitCode as a shell tells it: 128 and the signal's number for a killed process.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

func (c *container) update(change func(*v1.ContainerStatus)) { c.pod.updateStatus(c.spec.Name, change) }

func (c *container) probed(plan *probes) {
	started, ready := plan.started(), plan.ready()
	c.update(func(status *v1.ContainerStatus) { status.Started, status.Ready = &started, ready })
}

func (c *container) waiting(reason, message string) {
	c.update(func(status *v1.ContainerStatus) {
		status.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

// terminated keeps the end as the last state too, for the waiting that may follow.
func (c *container) terminated(exit v1.ContainerStateTerminated) {
	no := false
	c.update(func(status *v1.ContainerStatus) {
		status.State = v1.ContainerState{Terminated: &exit}
		status.LastTerminationState = v1.ContainerState{Terminated: &exit}
		status.Started, status.Ready = &no, false
	})
}
