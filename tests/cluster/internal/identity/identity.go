// Package identity makes credentials for the programs under test.
package identity

import (
	"context"
	"fmt"
	"os"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"headroom.dev/tests/cluster/internal/component"
	"headroom.dev/tests/cluster/internal/layout"
	"headroom.dev/tests/cluster/internal/pki"
)

// Admin is the configuration of the cluster's administrator.
func Admin(directory layout.Directory) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", directory.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("no cluster in %s (cluster up --dir %s makes one): %w", directory, directory, err)
	}
	return config, nil
}

// Token of a service account, from the TokenRequest API.
func Token(ctx context.Context, directory layout.Directory, namespace, account string, audiences []string, lifetime time.Duration) (string, error) {
	config, err := Admin(directory)
	if err != nil {
		return "", err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return "", err
	}
	expiry := int64(lifetime.Seconds())
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: &expiry}}
	answer, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return answer.Status.Token, nil
}

// Kubeconfig with a service account's token.
func Kubeconfig(ctx context.Context, directory layout.Directory, namespace, account string, lifetime time.Duration) ([]byte, error) {
	token, err := Token(ctx, directory, namespace, account, nil, lifetime)
	if err != nil {
		return nil, err
	}
	config, err := Admin(directory)
	if err != nil {
		return nil, err
	}
	made := component.Kubeconfig(config.Host, config.CAData, account, &clientcmdapi.AuthInfo{Token: token})
	made.Contexts[made.CurrentContext].Namespace = namespace
	return clientcmd.Write(*made)
}

// The authorities that can sign a certificate.
const (
	ClusterCA    = "cluster"
	FrontProxyCA = "front-proxy"
	NewCA        = "new"
)

// Certificate writes PREFIX.crt and PREFIX.key, and for an authority of its own, PREFIX-ca.crt.
func Certificate(directory layout.Directory, authority string, request pki.Request, prefix string) error {
	var signer pki.Authority
	var err error
	switch authority {
	case ClusterCA:
		signer, err = pki.Load(directory.Path("pki"), "ca")
	case FrontProxyCA:
		signer, err = pki.Load(directory.Path("pki"), "front-proxy-ca")
	case NewCA:
		if signer, err = pki.NewAuthority("a CA that nothing trusts"); err == nil {
			err = os.WriteFile(prefix+"-ca.crt", signer.CertificatePEM(), 0o644)
		}
	default:
		err = fmt.Errorf("--ca %q is not one of %s, %s, %s", authority, ClusterCA, FrontProxyCA, NewCA)
	}
	if err != nil {
		return err
	}
	certificate, key, err := signer.Issue(request)
	if err != nil {
		return err
	}
	return pki.WritePair(prefix, certificate, key)
}
