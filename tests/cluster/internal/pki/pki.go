// Package pki makes the certificates of a cluster.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity of everything signed here: longer than any state directory lives.
const validity = 10 * 365 * 24 * time.Hour

// Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// Request says what a certificate is for. Every certificate serves for client and server use.
type Request struct {
	// Name is the common name: the user of a client certificate.
	Name string
	// Groups are the organisations: the groups of a client certificate.
	Groups []string
	// Hosts are DNS names and IP addresses of a server.
	Hosts []string
}

// NewAuthority makes a self-signed CA.
func NewAuthority(name string) (Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Authority{}, err
	}
	template, err := template(pkix.Name{CommonName: name})
	if err != nil {
		return Authority{}, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	encoded, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Authority{}, err
	}
	certificate, err := x509.ParseCertificate(encoded)
	return Authority{Certificate: certificate, Key: key}, err
}

// Issue signs a certificate; both results are PEM.
func (a Authority) Issue(request Request) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template, err := template(pkix.Name{CommonName: request.Name, Organization: request.Groups})
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, host := range request.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	encoded, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, private.Public(), a.Key)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(private)
	return encodeCertificate(encoded), key, err
}

// CertificatePEM is the CA's own certificate.
func (a Authority) CertificatePEM() []byte { return encodeCertificate(a.Certificate.Raw) }

// Load reads DIR/NAME.crt and DIR/NAME.key.
func Load(dir, name string) (Authority, error) {
	certificate, err := readBlock(filepath.Join(dir, name+".crt"))
	if err != nil {
		return Authority{}, err
	}
	parsed, err := x509.ParseCertificate(certificate)
	if err != nil {
		return Authority{}, fmt.Errorf("%s.crt: %w", name, err)
	}
	key, err := readBlock(filepath.Join(dir, name+".key"))
	if err != nil {
		return Authority{}, err
	}
	private, err := x509.ParseECPrivateKey(key)
	if err != nil {
		return Authority{}, fmt.Errorf("%s.key: %w", name, err)
	}
	return Authority{Certificate: parsed, Key: private}, nil
}

// Ensure makes what a cluster needs in dir, unless it is all there.
func Ensure(dir string) error {
	complete := filepath.Join(dir, "complete")
	if _, err := os.Stat(complete); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cluster, err := ensureAuthority(dir, "ca", "test-cluster-ca")
	if err != nil {
		return err
	}
	frontProxy, err := ensureAuthority(dir, "front-proxy-ca", "front-proxy-ca")
	if err != nil {
		return err
	}
	for file, request := range leaves {
		authority := cluster
		if file == "front-proxy-client" {
			authority = frontProxy
		}
		certificate, key, err := authority.Issue(request)
		if err != nil {
			return err
		}
		if err := WritePair(filepath.Join(dir, file), certificate, key); err != nil {
			return err
		}
	}
	if err := serviceAccountKeys(dir); err != nil {
		return err
	}
	return os.WriteFile(complete, nil, 0o600)
}

// leaves by file name. The users of the controller manager and the scheduler are those whose roles the API server makes itself.
var leaves = map[string]Request{
	"apiserver": {
		Name:  "kube-apiserver",
		Hosts: []string{"localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.0.0.1"},
	},
	"front-proxy-client":       {Name: "front-proxy-client"},
	"apiserver-kubelet-client": {Name: "kube-apiserver-kubelet-client"},
	"admin":                    {Name: "admin", Groups: []string{"system:masters"}},
	"controller-manager":       {Name: "system:kube-controller-manager"},
	"scheduler":                {Name: "system:kube-scheduler"},
	"kubelet":                  {Name: "process-kubelet", Groups: []string{"system:masters"}, Hosts: []string{"localhost", "127.0.0.1"}},
}

func ensureAuthority(dir, file, name string) (Authority, error) {
	if existing, err := Load(dir, file); err == nil {
		return existing, nil
	}
	authority, err := NewAuthority(name)
	if err != nil {
		return Authority{}, err
	}
	key, err := encodeKey(authority.Key)
	if err != nil {
		return Authority{}, err
	}
	return authority, WritePair(filepath.Join(dir, file), authority.CertificatePEM(), key)
}

func serviceAccountKeys(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	if err := os.WriteFile(filepath.Join(dir, "service-account.key"), private, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "service-account.pub"), encoded, 0o644)
}

// WritePair writes PREFIX.crt and PREFIX.key.
func WritePair(prefix string, certificate, key []byte) error {
	if err := os.WriteFile(prefix+".crt", certificate, 0o644); err != nil {
		return err
	}
	return os.WriteFile(prefix+".key", key, 0o600)
}

func template(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	// An hour back, for clocks that differ.
	from := time.Now().Add(-time.Hour)
	return &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: from, NotAfter: from.Add(validity)}, nil
}

func encodeCertificate(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("only ECDSA keys are made here")
	}
	encoded, err := x509.MarshalECPrivateKey(private)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}), err
}

func readBlock(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", path)
	}
	return block.Bytes, nil
}
