package pki

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

// parsed reads a certificate of the directory.
func parsed(t *testing.T, directory, name string) *x509.Certificate {
	t.Helper()
	raw, err := readBlock(filepath.Join(directory, name+".crt"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func TestEnsureMakesWhatEachCATrusts(t *testing.T) {
	directory := t.TempDir()
	if err := Ensure(directory); err != nil {
		t.Fatal(err)
	}
	for name := range leaves {
		authority := "ca"
		if name == "front-proxy-client" {
			authority = "front-proxy-ca"
		}
		for _, ca := range []string{"ca", "front-proxy-ca"} {
			roots := x509.NewCertPool()
			roots.AddCert(parsed(t, directory, ca))
			_, err := parsed(t, directory, name).Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
			if (err == nil) != (ca == authority) {
				t.Errorf("%s against %s: %v", name, ca, err)
			}
		}
	}
	server := parsed(t, directory, "apiserver")
	for _, host := range []string{"localhost", "127.0.0.1"} {
		if err := server.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
}

func TestEnsureKeepsWhatIsThere(t *testing.T) {
	directory := t.TempDir()
	read := func() string {
		if err := Ensure(directory); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(directory, "service-account.key"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if read() != read() {
		t.Error("the key of the service accounts changed")
	}
}
