package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// target is the container that a probe or hook is for.
type target struct {
	container *v1.Container
	ip        string
	view      view
	env       []string
}

// probe runs the probe once; nil is success.
func (t target) probe(ctx context.Context, probe *v1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(max(probe.TimeoutSeconds, 1)))
	defer cancel()
	switch {
	case probe.HTTPGet != nil:
		return t.get(ctx, probe.HTTPGet)
	case probe.TCPSocket != nil:
		return t.connect(ctx, probe.TCPSocket)
	case probe.GRPC != nil:
		return t.grpcHealth(ctx, probe.GRPC)
	case probe.Exec != nil:
		return t.exec(ctx, probe.Exec)
	}
	return errors.New("the probe has no handler")
}

func (t target) get(ctx context.Context, action *v1.HTTPGetAction) error {
	address, err := t.address(action.Host, action.Port)
	if err != nil {
		return err
	}
	scheme := "http"
	if action.Scheme == v1.URISchemeHTTPS {
		scheme = "https"
	}
	path := "/" + strings.TrimPrefix(action.Path, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+address+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/test-cluster")
	for _, header := range action.HTTPHeaders {
		if strings.EqualFold(header.Name, "Host") {
			request.Host = header.Value
		}
		request.Header.Add(header.Name, header.Value)
	}
	// As the kubelet: no certificate is checked and no connection kept.
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("GET %s answered %s", action.Path, response.Status)
	}
	return nil
}

func (t target) connect(ctx context.Context, action *v1.TCPSocketAction) error {
	address, err := t.address(action.Host, action.Port)
	if err != nil {
		return err
	}
	connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return connection.Close()
}

func (t target) grpcHealth(ctx context.Context, action *v1.GRPCAction) error {
	address := net.JoinHostPort(t.ip, strconv.Itoa(int(action.Port)))
	connection, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	request := &grpc_health_v1.HealthCheckRequest{}
	if action.Service != nil {
		request.Service = *action.Service
	}
	response, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, request)
	if err != nil {
		return err
	}
	if response.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("gRPC health of %q is %s", request.Service, response.Status)
	}
	return nil
}

// exec runs the command beside the container's process, with its variables.
func (t target) exec(ctx context.Context, action *v1.ExecAction) error {
	if len(action.Command) == 0 {
		return errors.New("exec has no command")
	}
	argv := t.view.rewriteAll(action.Command)
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env = t.env
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %.200s", argv[0], err, output)
	}
	return nil
}

// address of a port by number or by the name that the container gives it.
func (t target) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = t.ip
	}
	host = t.view.rewrite(host)
	if port.Type == intstr.Int {
		return net.JoinHostPort(host, strconv.Itoa(int(port.IntVal))), nil
	}
	for _, named := range t.container.Ports {
		if named.Name == port.StrVal {
			return net.JoinHostPort(host, strconv.Itoa(int(named.ContainerPort))), nil
		}
	}
	return "", fmt.Errorf("container %s has no port named %q", t.container.Name, port.StrVal)
}
