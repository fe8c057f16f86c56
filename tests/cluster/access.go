package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"headroom.dev/tests/cluster/internal/crds"
	"headroom.dev/tests/cluster/internal/identity"
	"headroom.dev/tests/cluster/internal/layout"
	"headroom.dev/tests/cluster/internal/pki"
)

func token() *cobra.Command {
	command := &cobra.Command{Use: "token", Short: "print a service account's token, from the TokenRequest API", Args: cobra.NoArgs}
	path := directoryFlag(command)
	namespace := command.Flags().String("namespace", "default", "namespace of the service account")
	account := command.Flags().String("serviceaccount", "default", "name of the service account")
	audiences := command.Flags().StringArray("audience", nil, "audience of the token, repeatable (default: the API server)")
	duration := command.Flags().Duration("duration", time.Hour, "how long the token is good for; the API server gives no less than ten minutes")
	command.RunE = func(command *cobra.Command, _ []string) error {
		directory, err := layout.Open(*path)
		if err != nil {
			return err
		}
		text, err := identity.Token(command.Context(), directory, *namespace, *account, *audiences, *duration)
		if err == nil {
			fmt.Println(text)
		}
		return err
	}
	return command
}

func kubeconfig() *cobra.Command {
	command := &cobra.Command{Use: "kubeconfig", Short: "print the administrator's kubeconfig, or a service account's", Args: cobra.NoArgs}
	path := directoryFlag(command)
	account := command.Flags().String("serviceaccount", "", "NAMESPACE/NAME")
	duration := command.Flags().Duration("duration", 24*time.Hour, "how long the service account's token is good for")
	command.RunE = func(command *cobra.Command, _ []string) error {
		directory, err := layout.Open(*path)
		if err != nil {
			return err
		}
		var text []byte
		if *account == "" {
			text, err = os.ReadFile(directory.Kubeconfig())
		} else if namespace, name, found := strings.Cut(*account, "/"); found {
			text, err = identity.Kubeconfig(command.Context(), directory, namespace, name, *duration)
		} else {
			err = fmt.Errorf("--serviceaccount %q is not NAMESPACE/NAME", *account)
		}
		if err == nil {
			_, err = os.Stdout.Write(text)
		}
		return err
	}
	return command
}

func certificate() *cobra.Command {
	command := &cobra.Command{Use: "certificate", Short: "sign a certificate: write PREFIX.crt and PREFIX.key", Args: cobra.NoArgs}
	path := directoryFlag(command)
	authority := command.Flags().String("ca", identity.ClusterCA, "who signs: cluster, front-proxy, or new for a CA that nothing trusts (PREFIX-ca.crt)")
	var request pki.Request
	command.Flags().StringVar(&request.Name, "name", "", "common name: the user")
	command.Flags().StringArrayVar(&request.Groups, "group", nil, "organisation: a group of the user, repeatable")
	command.Flags().StringArrayVar(&request.Hosts, "host", nil, "DNS name or IP address of a server, repeatable")
	out := command.Flags().String("out", "", "PREFIX of the files")
	_ = command.MarkFlagRequired("name")
	_ = command.MarkFlagRequired("out")
	command.RunE = func(*cobra.Command, []string) error {
		directory, err := layout.Open(*path)
		if err != nil {
			return err
		}
		return identity.Certificate(directory, *authority, request, *out)
	}
	return command
}

func installCRDs() *cobra.Command {
	command := &cobra.Command{
		Use:   "crds [PATH]...",
		Short: "apply the CRDs of directories or files and wait until the API serves them; none means " + crds.ThirdParty,
		Long: "Applies the CRDs of directories or files and waits until the API serves them. " + crds.ThirdParty + " means those of the Prometheus\n" +
			"operator, Gateway API and KEDA, which the build put beside the binary; so do no arguments at all.",
	}
	path := directoryFlag(command)
	timeout := command.Flags().Duration("timeout", 30*time.Second, "time for the API to serve them")
	command.RunE = func(command *cobra.Command, args []string) error {
		directory, err := layout.Open(*path)
		if err != nil {
			return err
		}
		config, err := identity.Admin(directory)
		if err != nil {
			return err
		}
		if len(args) == 0 {
			args = []string{crds.ThirdParty}
		}
		ctx, cancel := context.WithTimeout(command.Context(), *timeout)
		defer cancel()
		return applyCRDs(ctx, config, args)
	}
	return command
}
