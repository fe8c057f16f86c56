// Package supervise starts the components of a cluster, watches them and obeys the other commands.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"headroom.dev/tests/cluster/internal/component"
	"headroom.dev/tests/cluster/internal/dns"
	"headroom.dev/tests/cluster/internal/layout"
)

// Options of a cluster to start.
type Options struct {
	Directory                 string
	APIPort                   int
	PodRange                  string
	Nodes                     string
	NodeSpecs                 []string
	Images                    []string
	HPASyncPeriod             time.Duration
	HPADownscaleStabilization time.Duration
	Extra                     map[string][]string
	Without                   []string
	Timeout                   time.Duration
	// Prepare runs when the API server answers and before the cluster counts as ready.
	Prepare func(context.Context, layout.Directory) error
	// Log takes progress and crashes, a line each.
	Log io.Writer
}

// grace that a component has after SIGTERM when the cluster stops.
const grace = 3 * time.Second

// Supervisor of one running cluster.
type Supervisor struct {
	directory layout.Directory
	config    component.Config
	processes map[string]*process
	order     []string
	log       io.Writer
	lock      *os.File
	control   net.Listener
	pods      podRange
	started   time.Time

	mu    sync.Mutex
	ready bool
	took  time.Duration
	// down is closed when the cluster is to stop.
	down     chan struct{}
	downOnce sync.Once
}

// Up starts a cluster and returns when all of it is ready. On an error nothing is left running.
func Up(ctx context.Context, options Options) (*Supervisor, error) {
	started := time.Now()
	directory, err := layout.Open(options.Directory)
	if err != nil {
		return nil, err
	}
	for _, path := range []string{directory.Path("logs"), directory.PodLogs(), directory.Pods()} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
	}
	lock, err := takeLock(directory)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{directory: directory, log: options.Log, lock: lock, started: started, down: make(chan struct{}), processes: map[string]*process{}}
	if err := s.prepare(options); err != nil {
		s.Stop()
		return nil, err
	}
	if err := s.startAll(ctx, options); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func takeLock(directory layout.Directory) (*os.File, error) {
	lock, err := os.OpenFile(directory.Path("lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("a cluster already runs in %s (cluster down --dir %s stops it)", directory, directory)
	}
	return lock, nil
}

func (s *Supervisor) prepare(options Options) error {
	previous, _ := s.directory.ReadDescription()
	var err error
	if s.pods, err = claim(options.PodRange, previous.PodRange); err != nil {
		return err
	}
	s.config = component.Config{
		Directory:                 s.directory,
		PodRange:                  s.pods.prefix.String(),
		Loopback:                  s.pods.prefix.Addr().IsLoopback(),
		HPASyncPeriod:             options.HPASyncPeriod.String(),
		HPADownscaleStabilization: options.HPADownscaleStabilization.String(),
		Nodes:                     options.Nodes,
		Images:                    options.Images,
		Extra:                     options.Extra,
	}
	for _, spec := range options.NodeSpecs {
		s.config.Extra[layout.Kubelet] = append(s.config.Extra[layout.Kubelet], "--node="+spec)
	}
	if err := s.choosePorts(options.APIPort, previous); err != nil {
		return err
	}
	if err := s.config.EnsureIdentities(); err != nil {
		return err
	}
	for _, name := range layout.Components {
		if slices.Contains(options.Without, name) {
			continue
		}
		s.order = append(s.order, name)
		s.processes[name] = &process{
			name: name, args: s.config.Args(name), log: s.directory.Log(name), port: s.config.Ports[name], onExit: s.exited,
		}
	}
	s.control, err = s.listen()
	return err
}

// choosePorts keeps the ports of a previous run where they are still free.
func (s *Supervisor) choosePorts(apiPort int, previous layout.Description) error {
	taken := map[int]bool{}
	s.config.Ports = map[string]int{}
	for _, name := range layout.Components {
		wished := previous.Components[name].Port
		if name == layout.APIServer && apiPort != 0 {
			wished = apiPort
		}
		port, err := portOr(wished, taken)
		if err != nil {
			return err
		}
		if name == layout.APIServer && apiPort != 0 && port != apiPort {
			return fmt.Errorf("--api-port %d is in use", apiPort)
		}
		s.config.Ports[name] = port
	}
	var err error
	s.config.EtcdPeer, err = freePort(taken)
	return err
}

// startAll brings the components up: everything else starts when the API server answers.
func (s *Supervisor) startAll(ctx context.Context, options Options) error {
	ctx, cancel := context.WithTimeout(ctx, options.Timeout)
	defer cancel()
	startOne := func(name string) error {
		err := s.startOne(ctx, name)
		if err == nil {
			fmt.Fprintf(s.log, "%s answers after %.1f s\n", name, time.Since(s.started).Seconds())
		}
		return err
	}
	for _, name := range []string{layout.Etcd, layout.APIServer} {
		if err := startOne(name); err != nil {
			return err
		}
	}
	results := make(chan error)
	rest := s.order[2:]
	for _, name := range rest {
		go func() { results <- startOne(name) }()
	}
	go func() { results <- options.Prepare(ctx, s.directory) }()
	var failed []error
	for range len(rest) + 1 {
		failed = append(failed, <-results)
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	s.mu.Lock()
	s.ready, s.took = true, time.Since(s.started)
	s.mu.Unlock()
	return s.write()
}

// startOne starts a component and waits until it answers; one that ends meanwhile is an error at once.
func (s *Supervisor) startOne(ctx context.Context, name string) error {
	process, err := s.process(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := process.start(); err != nil {
		return err
	}
	ended := process.ended
	go func() {
		select {
		case <-ended:
			cancel(fmt.Errorf("it ended (%s)", process.crashed()))
		case <-ctx.Done():
		}
	}()
	if err := s.config.AwaitReady(ctx, name); err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() == context.Canceled {
			return fmt.Errorf("%s: %w; its log is %s", name, cause, process.log)
		}
		return err
	}
	return s.write()
}

func (s *Supervisor) process(name string) (*process, error) {
	if process, ok := s.processes[name]; ok {
		return process, nil
	}
	return nil, fmt.Errorf("component %q is not one of %v", name, s.order)
}

// exited reports a process that ended by itself.
func (s *Supervisor) exited(process *process) {
	if crash := process.crashed(); crash != "" {
		fmt.Fprintf(s.log, "%s crashed: %s; its log is %s\n", process.name, crash, process.log)
	}
	if err := s.write(); err != nil {
		fmt.Fprintln(s.log, err)
	}
}

// Description as it is now.
func (s *Supervisor) Description() layout.Description {
	s.mu.Lock()
	defer s.mu.Unlock()
	description := layout.Description{
		Directory:    string(s.directory),
		Kubeconfig:   s.directory.Kubeconfig(),
		URL:          s.config.URL(),
		CA:           s.directory.PKI("ca.crt"),
		FrontProxyCA: s.directory.PKI("front-proxy-ca.crt"),
		PodRange:     s.config.PodRange,
		DNS:          dns.Address(s.pods.prefix),
		Version:      component.Version,
		Supervisor:   os.Getpid(),
		Ready:        s.ready,
		StartSeconds: float64(s.took.Milliseconds()) / 1000,
		Components:   map[string]layout.ComponentState{},
	}
	for name, process := range s.processes {
		description.Components[name] = process.state()
	}
	return description
}

var writing sync.Mutex

func (s *Supervisor) write() error {
	writing.Lock()
	defer writing.Unlock()
	return s.directory.WriteDescription(s.Description())
}

// Down is closed when another command asked the cluster to stop.
func (s *Supervisor) Down() <-chan struct{} { return s.down }

// Stop ends all processes, the kubelet and its pods first, and gives the directory free.
func (s *Supervisor) Stop() {
	s.mu.Lock()
	s.ready = false
	s.mu.Unlock()
	for _, name := range slices.Backward(s.order) {
		s.processes[name].stop(syscall.SIGTERM, grace)
	}
	if len(s.order) > 0 {
		if err := s.write(); err != nil {
			fmt.Fprintln(s.log, err)
		}
	}
	if s.control != nil {
		s.control.Close()
	}
	if s.pods.marker != nil {
		s.pods.marker.Close()
	}
	s.lock.Close()
}
