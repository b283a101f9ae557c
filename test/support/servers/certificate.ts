// A certificate for localhost, signed by itself, for tests of TLS. Nothing else trusts it.

export const certificate: string = `-----BEGIN CERTIFICATE-----
MIIBnDCCAUGgAwIBAgIUcegOjQUO2h0QttjJfJFf7kLWItgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDA0MTMwMFoYDzIxMjYxMTA2
MDQxMzAwWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARqPa/5dWlWzdxoXMX4fsAmTPmRivgXYr8cem6m0Us8XCIL3iMsbqiX
GDa9MLrb6LCCv/+iZAay/B8vBit/a+dZo28wbTAdBgNVHQ4EFgQUWtZAIgcK6v/g
5vURAu1ZGybrlr0wHwYDVR0jBBgwFoAUWtZAIgcK6v/g5vURAu1ZGybrlr0wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSQAwRgIhAPN2LWI1reLMLqxPXPFSy0EDfWAf1Jif94O7p9UBZMy8AiEA
6V1CAXL/SSefAgwDqkp9efZjErXyWtjpsUFbiGjlqaY=
-----END CERTIFICATE-----
`;

export const key: string = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgctyodx+tzEDt4Khf
CuKEEkvvRUpYbnJKFahF4Mx/2mqhRANCAARqPa/5dWlWzdxoXMX4fsAmTPmRivgX
Yr8cem6m0Us8XCIL3iMsbqiXGDa9MLrb6LCCv/+iZAay/B8vBit/a+dZ
-----END PRIVATE KEY-----
`;
