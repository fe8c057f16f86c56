package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"headroom.dev/tests/cluster/internal/crds"
	"headroom.dev/tests/cluster/internal/identity"
	"headroom.dev/tests/cluster/internal/kubelet"
	"headroom.dev/tests/cluster/internal/layout"
	"headroom.dev/tests/cluster/internal/supervise"
)

// detached is set in the environment of a supervisor that is to outlive the command that started it.
const detached = "TEST_CLUSTER_DETACHED"

func up() *cobra.Command {
	command := &cobra.Command{
		Use: "up", Args: cobra.NoArgs,
		Short: "start everything; prints one JSON line when all is ready, and stays",
		Long: "Starts everything and prints cluster.json as one line on standard output when all is ready. Stays in the foreground;\n" +
			"SIGINT, SIGTERM or the death of the parent process stop everything. An existing directory is started again with its data.",
	}
	var options supervise.Options
	flags := command.Flags()
	flags.StringVar(&options.Directory, "dir", ".cluster", "state directory")
	flags.StringArrayVar(&options.NodeSpecs, "node", nil, nodeHelp)
	flags.StringVar(&options.Nodes, "nodes", "", "nodes as a YAML list of {name, labels, annotations, taints, allocatable}")
	flags.StringArrayVar(&options.Images, "image", nil, imageHelp)
	paths := flags.StringArray("crds", nil, "CRDs to apply before the cluster is ready, repeatable: a directory, a file or "+crds.ThirdParty)
	flags.IntVar(&options.APIPort, "api-port", 0, "port of the API server; 0 takes a free one")
	flags.StringVar(&options.PodRange, "pod-range", "", "addresses of pods (default: a free 127.N.0.0/16)")
	flags.DurationVar(&options.HPASyncPeriod, "hpa-sync-period", 2*time.Second, "time between decisions of the HPA controller")
	flags.DurationVar(&options.HPADownscaleStabilization, "hpa-downscale-stabilization", 5*time.Second, "what HPAs without a behaviour of their own look back")
	extra := map[string]*[]string{}
	for _, name := range []string{layout.APIServer, layout.ControllerManager, layout.Scheduler, layout.Kubelet} {
		extra[name] = flags.StringArray(name+"-arg", nil, "further argument of the "+name+", repeatable")
	}
	flags.StringArrayVar(&options.Without, "without", nil, "component to leave out, repeatable: controller-manager, scheduler or kubelet")
	flags.DurationVar(&options.Timeout, "timeout", 2*time.Minute, "time for all to be ready")
	detach := flags.Bool("detach", false, "return when all is ready; the cluster stays until `cluster down`")
	command.RunE = func(*cobra.Command, []string) error {
		if err := check(&options); err != nil {
			return err
		}
		if *detach {
			return detachUp(options.Directory)
		}
		options.Extra = map[string][]string{}
		for name, args := range extra {
			options.Extra[name] = *args
		}
		options.Log = os.Stderr
		options.Prepare = func(ctx context.Context, directory layout.Directory) error {
			return prepare(ctx, directory, *paths, options)
		}
		return stay(options)
	}
	return command
}

// check finds mistakes in arguments that only the kubelet would find, too late to tell.
func check(options *supervise.Options) error {
	for _, name := range options.Without {
		if name != layout.ControllerManager && name != layout.Scheduler && name != layout.Kubelet {
			return fmt.Errorf("--without %q is not one of controller-manager, scheduler, kubelet", name)
		}
	}
	if _, err := nodes(options.NodeSpecs, options.Nodes); err != nil {
		return err
	}
	if options.Nodes != "" {
		absolute, err := filepath.Abs(options.Nodes)
		if err != nil {
			return err
		}
		options.Nodes = absolute
	}
	_, err := kubelet.ParseImages(options.Images)
	return err
}

// stay runs the cluster until a signal, the parent's death or `cluster down`.
func stay(options supervise.Options) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	if os.Getenv(detached) == "" {
		go whenParentEnds(stop)
	}
	cluster, err := supervise.Up(ctx, options)
	if err != nil {
		return err
	}
	defer cluster.Stop()
	line, err := json.Marshal(cluster.Description())
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	select {
	case <-ctx.Done():
	case <-cluster.Down():
	}
	return nil
}

// whenParentEnds calls stop when the process that started this one has ended. The kernel's own signal for that (PR_SET_PDEATHSIG) comes
// when the starting thread ends, which in a test program may be long before.
func whenParentEnds(stop func()) {
	parent, err := unix.PidfdOpen(os.Getppid(), 0)
	if err != nil {
		return
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(parent), Events: unix.POLLIN}}, -1)
		if err == nil {
			stop()
			return
		}
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// detachUp starts the same command in a session of its own, and passes its line on. What it says later goes to supervisor.log.
func detachUp(path string) error {
	directory, err := layout.Open(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(directory.Path("logs"), 0o755); err != nil {
		return err
	}
	log, err := os.Create(directory.Log("supervisor"))
	if err != nil {
		return err
	}
	defer log.Close()
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.Command(binary)
	for _, argument := range os.Args[1:] {
		if argument != "--detach" && argument != "--detach=true" {
			command.Args = append(command.Args, argument)
		}
	}
	command.Env = append(os.Environ(), detached+"=1")
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Stderr = log
	output, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		_, err = os.Stdout.Write(line)
		return err
	}
	_ = command.Wait()
	text, _ := os.ReadFile(log.Name())
	return errors.New(strings.TrimPrefix(strings.TrimSpace(string(text)), "cluster: "))
}

// prepare applies CRDs and waits for what a first pod needs: the service account of its namespace, and nodes that take pods.
func prepare(ctx context.Context, directory layout.Directory, paths []string, options supervise.Options) error {
	config, err := identity.Admin(directory)
	if err != nil {
		return err
	}
	if err := applyCRDs(ctx, config, paths); err != nil {
		return err
	}
	if slices.Contains(options.Without, layout.ControllerManager) {
		return nil
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := await(ctx, "service account default", func() (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	}); err != nil {
		return err
	}
	wanted, err := nodes(options.NodeSpecs, options.Nodes)
	if err != nil || slices.Contains(options.Without, layout.Kubelet) {
		return err
	}
	for _, spec := range wanted {
		if err := await(ctx, "node "+spec.Name, func() (bool, error) {
			node, err := client.CoreV1().Nodes().Get(ctx, spec.Name, metav1.GetOptions{})
			return err == nil && takesPods(node), err
		}); err != nil {
			return err
		}
	}
	return nil
}

// takesPods says whether the node is ready and the controller manager has seen it.
func takesPods(node *v1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Key == v1.TaintNodeNotReady || taint.Key == v1.TaintNodeUnreachable {
			return false
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == v1.NodeReady {
			return condition.Status == v1.ConditionTrue
		}
	}
	return false
}

// await asks until the answer is yes.
func await(ctx context.Context, what string, ask func() (bool, error)) error {
	for {
		yes, err := ask()
		if yes {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", what, errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func applyCRDs(ctx context.Context, config *rest.Config, paths []string) error {
	var resolved []string
	for _, path := range paths {
		one, err := crds.Resolve(path)
		if err != nil {
			return err
		}
		resolved = append(resolved, one)
	}
	return crds.Apply(ctx, config, resolved)
}

func down() *cobra.Command {
	command := &cobra.Command{Use: "down", Short: "stop the cluster", Args: cobra.NoArgs}
	path := directoryFlag(command)
	remove := command.Flags().Bool("delete", false, "remove the state directory too")
	command.RunE = func(*cobra.Command, []string) error {
		directory, err := layout.Open(*path)
		if err != nil {
			return err
		}
		if _, err := os.Stat(directory.Description()); err != nil {
			return fmt.Errorf("no cluster in %s", directory)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		// An error says that nothing runs there, which is what is wanted.
		_, _ = supervise.Send(directory, supervise.Order{Action: "down"})
		if err := supervise.Stopped(ctx, directory); err != nil || !*remove {
			return err
		}
		return os.RemoveAll(string(directory))
	}
	return command
}

func status() *cobra.Command {
	command := &cobra.Command{Use: "status", Short: "print cluster.json as it is now, on one line", Args: cobra.NoArgs}
	path := directoryFlag(command)
	command.RunE = func(*cobra.Command, []string) error { return send(*path, supervise.Order{Action: "status"}, true) }
	return command
}

// order is a command about one component.
func order(action, short string) *cobra.Command {
	command := &cobra.Command{Use: action + " COMPONENT", Short: short, Args: cobra.ExactArgs(1), ValidArgs: layout.Components}
	path := directoryFlag(command)
	timeout, grace, name := 30*time.Second, 5*time.Second, "TERM"
	if action == "start" || action == "restart" {
		command.Flags().DurationVar(&timeout, "timeout", timeout, "time for the process to answer")
	}
	if action == "stop" || action == "restart" {
		command.Flags().StringVar(&name, "signal", name, "TERM, KILL, INT or another signal")
		command.Flags().DurationVar(&grace, "grace", grace, "time from the signal until the process is killed")
	}
	command.RunE = func(_ *cobra.Command, args []string) error {
		signal := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
		if signal == 0 {
			return fmt.Errorf("--signal %q is no signal; TERM and KILL are", name)
		}
		return send(*path, supervise.Order{Action: action, Component: args[0], Signal: signal, Grace: grace, Timeout: timeout}, false)
	}
	return command
}

func send(path string, order supervise.Order, show bool) error {
	directory, err := layout.Open(path)
	if err != nil {
		return err
	}
	description, err := supervise.Send(directory, order)
	if err != nil || !show {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(description)
}
