package component

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"headroom.dev/tests/cluster/internal/layout"
)

// pollPeriod of readiness checks.
const pollPeriod = 50 * time.Millisecond

// AwaitReady returns when the component answers its health check, or with the last answer when the context ends.
func (c Config) AwaitReady(ctx context.Context, component string) error {
	client, err := c.healthClient()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	address := c.healthURL(component)
	for {
		err := healthy(ctx, client, address)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; its log is %s", component, err, c.Directory.Log(component))
		case <-time.After(pollPeriod):
		}
	}
}

func (c Config) healthURL(component string) string {
	switch component {
	case layout.Etcd:
		return fmt.Sprintf("http://127.0.0.1:%d/health", c.Ports[component])
	case layout.APIServer:
		return c.URL() + "/readyz"
	default:
		return fmt.Sprintf("https://127.0.0.1:%d/healthz", c.Ports[component])
	}
}

// healthClient trusts anyone: the controller manager and the scheduler sign for themselves. It is the administrator to the API server.
func (c Config) healthClient() (*http.Client, error) {
	pair, err := tls.LoadX509KeyPair(c.Directory.PKI("admin.crt"), c.Directory.PKI("admin.key"))
	if err != nil {
		return nil, err
	}
	settings := &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: settings}}, nil
}

func healthy(ctx context.Context, client *http.Client, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	return fmt.Errorf("%s answered %s: %s", address, response.Status, failing(string(body)))
}

// failing keeps the lines that say what is not ready.
func failing(body string) string {
	var lines []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "[-]") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if len(lines) == 0 {
		return strings.TrimSpace(body)
	}
	return strings.Join(lines, ", ")
}
