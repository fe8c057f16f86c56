package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// alone is set in the process that has a network, mounts and processes of its own.
const alone = "HEADROOM_IMAGE_TEST_ALONE"

// TestMain runs everything once more in namespaces of its own where an image is to be run: the chart's ports are fixed
// ones, its mounts would be everyone's.
func TestMain(m *testing.M) {
	if !runnable() {
		os.Exit(m.Run())
	}
	if os.Getenv(alone) == "" {
		again := exec.Command("/proc/self/exe", os.Args[1:]...)
		again.Env = append(os.Environ(), alone+"=1")
		again.Stdout, again.Stderr = os.Stdout, os.Stderr
		again.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
			Pdeathsig:  syscall.SIGKILL,
		}
		if err := again.Run(); err != nil {
			os.Stderr.WriteString("in namespaces of its own: " + err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := settle(); err != nil {
		os.Stderr.WriteString("namespaces: " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runnable() bool { return os.Getenv("HEADROOM_IMAGE") != "" && os.Getuid() == 0 }

// settle keeps mounts from leaving the namespace and raises its loopback interface.
func settle() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback)
}

// archive is the image to run; without one, or without the rights to run it, the test is skipped, and fails in CI.
func archive(t *testing.T) string {
	t.Helper()
	missing := ""
	switch {
	case os.Getenv("HEADROOM_IMAGE") == "" || os.Getenv("HEADROOM_HELM") == "":
		missing = "an image and Helm: make image-test"
	case os.Getuid() != 0:
		missing = "root"
	default:
		path, err := filepath.Abs(os.Getenv("HEADROOM_IMAGE"))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("not run: needs " + missing)
	}
	t.Skip("not run: needs " + missing)
	return ""
}
