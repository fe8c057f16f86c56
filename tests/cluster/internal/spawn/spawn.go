// Package spawn starts processes that do not outlive this one.
package spawn

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

var (
	once sync.Once
	jobs = make(chan func())
)

// Start starts the command as leader of its own session, to be killed by the kernel when this process ends, however it ends.
//
// The kernel ties that to the thread which forked, so all commands start on one thread that never ends.
func Start(command *exec.Cmd) error {
	once.Do(func() { go forever() })
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	result := make(chan error)
	jobs <- func() { result <- command.Start() }
	return <-result
}

func forever() {
	runtime.LockOSThread()
	for job := range jobs {
		job()
	}
}

// KillGroup kills the command's process and what it started in its session's first process group.
func KillGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }
