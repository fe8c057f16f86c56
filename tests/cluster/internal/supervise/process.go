package supervise

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"headroom.dev/tests/cluster/internal/layout"
	"headroom.dev/tests/cluster/internal/spawn"
)

// process is one component: at most one running process, started again and again.
type process struct {
	name   string
	args   []string
	log    string
	port   int
	onExit func(*process)

	mu       sync.Mutex
	command  *exec.Cmd
	ended    chan struct{}
	expected bool
	paused   bool
	crash    string
}

// start does nothing if the process runs.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return nil
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(binary, append([]string{p.name}, p.args...)...)
	command.Stdout, command.Stderr = log, log
	if err := spawn.Start(command); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	p.command, p.ended = command, make(chan struct{})
	p.expected, p.paused, p.crash = false, false, ""
	go p.wait(command, p.ended)
	return nil
}

func (p *process) wait(command *exec.Cmd, ended chan struct{}) {
	_ = command.Wait()
	p.mu.Lock()
	if !p.expected {
		p.crash = command.ProcessState.String()
	}
	close(ended)
	p.mu.Unlock()
	p.onExit(p)
}

// stop sends the signal and waits; what is there after the grace is killed.
func (p *process) stop(signal syscall.Signal, grace time.Duration) {
	p.mu.Lock()
	if !p.running() {
		p.crash = ""
		p.mu.Unlock()
		return
	}
	p.expected = true
	ended, pid := p.ended, p.command.Process.Pid
	_ = syscall.Kill(pid, signal)
	if p.paused && signal != syscall.SIGKILL {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	p.mu.Unlock()
	select {
	case <-ended:
	case <-time.After(grace):
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-ended
	}
}

// pause stops the process with SIGSTOP or lets it go on.
func (p *process) pause(paused bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("%s does not run; start it first", p.name)
	}
	signal := syscall.SIGCONT
	if paused {
		signal = syscall.SIGSTOP
	}
	if err := syscall.Kill(p.command.Process.Pid, signal); err != nil {
		return err
	}
	p.paused = paused
	return nil
}

// running is to be called with the lock held.
func (p *process) running() bool {
	if p.command == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// crashed gives how the process ended by itself, or nothing.
func (p *process) crashed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.crash
}

func (p *process) state() layout.ComponentState {
	p.mu.Lock()
	defer p.mu.Unlock()
	state := layout.ComponentState{Port: p.port, Log: p.log, State: "stopped"}
	switch {
	case p.running():
		state.Pid = p.command.Process.Pid
		state.State = "running"
		if p.paused {
			state.State = "paused"
		}
	case p.crash != "":
		state.State, state.Exit = "crashed", p.crash
	}
	return state
}
