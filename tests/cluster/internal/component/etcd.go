package component

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// etcdQuotaBytes bounds the database of a long test.
const etcdQuotaBytes = 2 << 30

// RunEtcd serves one etcd member until SIGTERM or SIGINT.
func RunEtcd(data, client, peer string) error {
	config := embed.NewConfig()
	config.Name = "test"
	config.Dir = data
	// A cluster for tests need not survive the machine; a killed process loses nothing that it has written.
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	config.LogOutputs = []string{"stderr"}
	config.QuotaBackendBytes = etcdQuotaBytes
	config.AutoCompactionMode = "periodic"
	config.AutoCompactionRetention = "5m"
	clientURL, err := url.Parse(client)
	if err != nil {
		return fmt.Errorf("--client: %w", err)
	}
	peerURL, err := url.Parse(peer)
	if err != nil {
		return fmt.Errorf("--peer: %w", err)
	}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return err
	}
}
