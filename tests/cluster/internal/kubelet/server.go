package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"
)

// followPeriod is how often a followed log is looked at.
const followPeriod = 200 * time.Millisecond

// serve answers health checks of anyone, and the API server's requests for logs (kubectl logs).
func (k *Kubelet) serve() (stop func(), err error) {
	pair, err := tls.LoadX509KeyPair(k.directory.PKI("kubelet.crt"), k.directory.PKI("kubelet.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(k.directory.PKI("ca.crt"))
	if err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(ca)
	listener, err := net.Listen("tcp4", net.JoinHostPort(hostIP, strconv.Itoa(k.port)))
	if err != nil {
		return nil, err
	}
	routes := http.NewServeMux()
	routes.HandleFunc("GET /healthz", k.health)
	routes.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.containerLogs)
	server := &http.Server{Handler: routes, TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven,
	}}
	go func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			k.log("server: %v", err)
		}
	}()
	return func() { _ = server.Close() }, nil
}

func (k *Kubelet) health(response http.ResponseWriter, _ *http.Request) {
	if !k.registered.Load() {
		http.Error(response, "nodes are not registered yet", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(response, "ok")
}

func (k *Kubelet) containerLogs(response http.ResponseWriter, request *http.Request) {
	if len(request.TLS.PeerCertificates) == 0 {
		http.Error(response, "a client certificate of the cluster's CA is needed", http.StatusUnauthorized)
		return
	}
	file, err := os.Open(k.logPath(request.PathValue("namespace"), request.PathValue("pod"), request.PathValue("container")))
	if err != nil {
		http.Error(response, "the container has written nothing yet", http.StatusNotFound)
		return
	}
	defer file.Close()
	query := request.URL.Query()
	if lines, err := strconv.Atoi(query.Get("tailLines")); err == nil {
		if err := seekTail(file, lines); err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	follow(request.Context(), response, file, query.Get("follow") == "true")
}

// seekTail goes to where the last lines begin.
func seekTail(file *os.File, lines int) error {
	text, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	at := len(text)
	for at > 0 {
		if text[at-1] == '\n' && at < len(text) {
			if lines--; lines == 0 {
				break
			}
		}
		at--
	}
	_, err = file.Seek(int64(at), io.SeekStart)
	return err
}

// follow copies the file, and what is appended to it for as long as somebody reads.
func follow(ctx context.Context, response http.ResponseWriter, file *os.File, on bool) {
	for {
		if _, err := io.Copy(response, file); err != nil || !on {
			return
		}
		if flusher, ok := response.(http.Flusher); ok {
			flusher.Flush()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(followPeriod):
		}
	}
}

func kill(pid string) {
	if number, err := strconv.Atoi(pid); err == nil {
		_ = syscall.Kill(number, syscall.SIGKILL)
	}
}
