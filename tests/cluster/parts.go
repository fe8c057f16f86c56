package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // as the components' own main packages do
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectlcmd "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserverapp "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllerapp "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	schedulerapp "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"headroom.dev/tests/cluster/internal/component"
	"headroom.dev/tests/cluster/internal/dns"
	"headroom.dev/tests/cluster/internal/kubelet"
	"headroom.dev/tests/cluster/internal/layout"
)

func etcd() *cobra.Command {
	command := &cobra.Command{Use: layout.Etcd, Short: "etcd, one member", Args: cobra.NoArgs}
	data := command.Flags().String("data", "", "data directory")
	client := command.Flags().String("client", "", "URL for clients, such as http://127.0.0.1:2379")
	peer := command.Flags().String("peer", "", "URL for peers")
	command.RunE = func(*cobra.Command, []string) error { return component.RunEtcd(*data, *client, *peer) }
	return command
}

func apiServer() *cobra.Command {
	return foreign(layout.APIServer, "kube-apiserver, with its own flags", apiserverapp.NewAPIServerCommand)
}

func controllerManager() *cobra.Command {
	return foreign(layout.ControllerManager, "kube-controller-manager, with its own flags", controllerapp.NewControllerManagerCommand)
}

func scheduler() *cobra.Command {
	return foreign(layout.Scheduler, "kube-scheduler, with its own flags", func() *cobra.Command { return schedulerapp.NewSchedulerCommand() })
}

// foreign is a Kubernetes command; it is made only when it runs, because each of them registers flags and gates of the whole process.
func foreign(name, short string, make func() *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, DisableFlagParsing: true, Run: func(_ *cobra.Command, args []string) {
		command := make()
		command.SetArgs(args)
		os.Exit(cli.Run(command))
	}}
}

func kubectl() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [--dir DIR] ARGS...",
		Short:              "kubectl as administrator of the cluster (KUBECONFIG wins where it is set)",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			path, args := leadingDirectory(args)
			directory, err := layout.Open(path)
			if err != nil {
				return err
			}
			if os.Getenv("KUBECONFIG") == "" {
				if err := os.Setenv("KUBECONFIG", directory.Kubeconfig()); err != nil {
					return err
				}
			}
			// kubectl looks at the process's arguments itself.
			os.Args = append([]string{"kubectl"}, args...)
			if err := cli.RunNoErrOutput(kubectlcmd.NewDefaultKubectlCommand()); err != nil {
				kubectlutil.CheckErr(err)
			}
			return nil
		},
	}
}

// leadingDirectory takes --dir from the front of kubectl's arguments.
func leadingDirectory(args []string) (directory string, rest []string) {
	switch {
	case len(args) > 1 && args[0] == "--dir":
		return args[1], args[2:]
	case len(args) > 0 && strings.HasPrefix(args[0], "--dir="):
		return strings.TrimPrefix(args[0], "--dir="), args[1:]
	}
	return ".cluster", args
}

func processKubelet() *cobra.Command {
	command := &cobra.Command{Use: layout.Kubelet, Short: "the process kubelet: nodes from flags, a process for every container", Args: cobra.NoArgs}
	flags := command.Flags()
	directory := directoryFlag(command)
	port := flags.Int("port", 10250, "port for health and logs")
	podRange := flags.String("pod-range", "127.2.0.0/16", "addresses of pods")
	nodeSpecs := flags.StringArray("node", nil, nodeHelp)
	nodesFile := flags.String("nodes", "", "YAML list of {name, labels, annotations, taints, allocatable}")
	images := flags.StringArray("image", nil, imageHelp)
	period := flags.Duration("sync-period", time.Second, "time between looks at the ConfigMaps and Secrets that a pod mounts")
	command.RunE = func(*cobra.Command, []string) error {
		options := kubelet.Options{Port: *port, SyncPeriod: *period, Log: os.Stderr}
		var err error
		if options.Directory, err = layout.Open(*directory); err != nil {
			return err
		}
		if options.PodRange, err = netip.ParsePrefix(*podRange); err != nil {
			return fmt.Errorf("--pod-range: %w", err)
		}
		if options.Images, err = kubelet.ParseImages(*images); err != nil {
			return err
		}
		if options.Nodes, err = nodes(*nodeSpecs, *nodesFile); err != nil {
			return err
		}
		config, err := clientcmd.BuildConfigFromFlags("", options.Directory.ComponentKubeconfig(layout.Kubelet))
		if err != nil {
			return err
		}
		served, err := kubelet.New(config, options)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(command.Context(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		go func() {
			if err := dns.Serve(ctx, client, dns.Address(options.PodRange)); err != nil {
				fmt.Fprintln(os.Stderr, "name server:", err)
			}
		}()
		return served.Run(ctx)
	}
	return command
}

const (
	nodeHelp  = "node to register, repeatable: NAME[,product=H100][,gpu=8][,cpu=64][,memory=512Gi][,pods=110][,label=KEY=VALUE]..."
	imageHelp = "what runs for an image whose repository ends in NAME, repeatable: NAME=BINARY"
)

// nodes of the flags and the file.
func nodes(specs []string, file string) ([]kubelet.NodeSpec, error) {
	var all []kubelet.NodeSpec
	if file != "" {
		read, err := kubelet.ReadNodes(file)
		if err != nil {
			return nil, err
		}
		all = read
	}
	for _, spec := range specs {
		node, err := kubelet.ParseNode(spec)
		if err != nil {
			return nil, err
		}
		all = append(all, node)
	}
	return all, nil
}
