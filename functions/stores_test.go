package functions_test

import (
	"crypto/rand"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
	"github.com/sluice-iot/sluice/internal/registry/pgstore"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

func TestMain(m *testing.M) { os.Exit(dynamotest.Run(m)) }

// TestOtherStores repeats on real servers what the tests show on SQLite and what
// depends on transactions. It takes longer, so it runs with SLUICE_TEST_ALL=1.
func TestOtherStores(t *testing.T) {
	if os.Getenv("SLUICE_TEST_ALL") != "1" {
		t.Skip("PostgreSQL and DynamoDB Local are started with SLUICE_TEST_ALL=1 only")
	}
	t.Run("postgres", func(t *testing.T) {
		db := pgtest.Start(t)
		everyTest(t, func(t *testing.T) backend {
			s, err := pgstore.Open(t.Context(), db.URL, pgstore.Options{Schema: pgtest.Schema()})
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
	t.Run("dynamodb", func(t *testing.T) {
		endpoint := dynamotest.Endpoint(t)
		everyTest(t, func(t *testing.T) backend {
			s, err := dynamostore.Open(t.Context(), dynamostore.Options{Table: "t-" + rand.Text(), Endpoint: endpoint, Region: dynamotest.Region, Create: true,
				Credentials: credentials.NewStaticCredentialsProvider(dynamotest.AccessKey, dynamotest.SecretKey, "")})
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
}

func everyTest(t *testing.T, open func(*testing.T) backend) {
	for name, test := range map[string]func(*testing.T, *installation){
		"AdmitByCertificate":        testAdmitByCertificate,
		"ProvisionByCertificate":    testProvisionByCertificate,
		"ProvisionByCredentialsGet": testProvisionByCredentialsGet,
		"ProvisionByGateway":        testProvisionByGateway,
		"NobodyTakesTheNotice":      testNobodyTakesTheNotice,
		"ProvisioningHasLimits":     testProvisioningHasLimits,
		"TwoAtOnce":                 testTwoAtOnce,
		"VerifiedPasswordsAreKept":  testVerifiedPasswordsAreKept,
		"ChangesAreTold":            testChangesAreTold,
		"PasswordsOfProviders":      testPasswordsOfIdentityProviders,
		"ChangesAreFound":           testChangesAreFound,
	} {
		t.Run(name, func(t *testing.T) { test(t, newInstallationOn(t, open(t))) })
	}
}
