// Command cluster runs a Kubernetes control plane on loopback, and pods as processes of this machine, for tests.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"headroom.dev/tests/cluster/internal/component"
)

func main() {
	if err := root().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	command := &cobra.Command{
		Use:           "cluster",
		Short:         "A real Kubernetes control plane on loopback, with pods as processes, for tests",
		Version:       component.Version,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	command.AddGroup(
		&cobra.Group{ID: "whole", Title: "The cluster:"},
		&cobra.Group{ID: "faults", Title: "One component (etcd, apiserver, controller-manager, scheduler, kubelet):"},
		&cobra.Group{ID: "access", Title: "Access and contents:"},
		&cobra.Group{ID: "parts", Title: "Components, as `up` starts them:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, one := range commands {
			one.GroupID = group
			command.AddCommand(one)
		}
	}
	add("whole", up(), down(), status())
	add("faults",
		order("start", "start a component again on its own data, and wait until it answers"),
		order("stop", "send a component a signal, and wait until its process is gone"),
		order("restart", "stop a component, then start it"),
		order("pause", "suspend a component (SIGSTOP)"),
		order("resume", "let a suspended component go on (SIGCONT)"))
	add("access", token(), kubeconfig(), certificate(), installCRDs(), kubectl())
	add("parts", etcd(), apiServer(), controllerManager(), scheduler(), processKubelet())
	return command
}

// directoryFlag adds --dir.
func directoryFlag(command *cobra.Command) *string {
	return command.Flags().String("dir", ".cluster", "state directory")
}
