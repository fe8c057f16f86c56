package supervise

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the component: it waits until it is killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "a-component" {
		time.Sleep(time.Hour)
		return
	}
	os.Exit(m.Run())
}

func TestAProcessIsStoppedPausedAndReportedWhenItCrashes(t *testing.T) {
	ends := make(chan string, 10)
	one := &process{name: "a-component", log: filepath.Join(t.TempDir(), "log"), onExit: func(p *process) { ends <- p.crashed() }}
	start := func() int {
		t.Helper()
		if err := one.start(); err != nil {
			t.Fatal(err)
		}
		return one.state().Pid
	}
	pid := start()
	if again := start(); again != pid {
		t.Fatal("a running process was started twice")
	}
	if err := one.pause(true); err != nil || one.state().State != "paused" {
		t.Fatalf("%v, %+v", err, one.state())
	}
	// A paused process obeys too.
	one.stop(syscall.SIGTERM, time.Minute)
	if crash := <-ends; crash != "" || one.state().State != "stopped" || one.state().Pid != 0 {
		t.Fatalf("a stopped process counts as crashed (%q): %+v", crash, one.state())
	}
	if err := one.pause(true); err == nil {
		t.Fatal("a stopped process was paused")
	}
	if err := syscall.Kill(start(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if crash := <-ends; crash == "" || one.state().State != "crashed" {
		t.Fatalf("a killed process did not crash: %+v", one.state())
	}
	start()
	if state := one.state(); state.State != "running" || state.Exit != "" {
		t.Fatalf("started again: %+v", state)
	}
	one.stop(syscall.SIGKILL, time.Minute)
	<-ends
}
